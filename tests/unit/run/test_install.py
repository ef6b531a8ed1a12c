"""envs/install.py: uv gets from pip's settings where packages come from."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

SPEC = importlib.util.spec_from_file_location("install", Path(__file__).parents[3] / "envs" / "install.py")
install = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(install)


def settings(listed, **present):
    found = install.uv_environment(listed, present)
    return {name: value for name, value in found.items() if name not in install.DEFAULTS}


def test_places_of_packages_are_handed_to_uv():
    listed = """:env:.disable-pip-version-check='1'
:env:.find-links='/wheels /more'
global.cert='/etc/ca.crt'
global.constraint='/etc/constraints.txt'
global.extra-index-url='\\nfile:///a/simple\\nfile:///b/simple'
global.index-url='https://mirror.example/simple'
global.timeout='180'
"""
    assert settings(listed) == {
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/etc/ca.crt",
        "UV_EXTRA_INDEX_URL": "file:///a/simple file:///b/simple",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_HTTP_TIMEOUT": "180",
    }


@pytest.mark.parametrize("turned", [False, True])
def test_variables_go_before_files_and_the_command_before_all_commands(turned):
    lines = [":env:.index-url='https://c'", "install.index-url='https://b'", "global.index-url='https://a'"]
    assert settings("\n".join(reversed(lines) if turned else lines)) == {"UV_DEFAULT_INDEX": "https://c"}
    assert settings("\n".join(lines[1:])) == {"UV_DEFAULT_INDEX": "https://b"}


def test_what_is_said_to_uv_itself_stays():
    found = install.uv_environment("global.index-url='https://a'", {"UV_DEFAULT_INDEX": "https://own", "HOME": "/root"})
    assert (found["UV_DEFAULT_INDEX"], found["HOME"]) == ("https://own", "/root")
    assert install.uv_environment("", {"UV_LINK_MODE": "copy"})["UV_LINK_MODE"] == "copy"


def test_other_commands_settings_and_nothing_are_passed_over():
    assert settings("download.index-url='https://d'\nglobal.find-links=''\nnot a setting\n") == {}


def test_an_unknown_set_is_one_line():
    with pytest.raises(SystemExit, match="name what to install, one of host, test"):
        install.main(["everything"])


def test_without_uv_pip_installs_the_same_files(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(install, "bootstrap", lambda: None)
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(install.subprocess, "run", lambda step, **_: calls.append(step) or done)
    install.main(["host"])
    assert all(step[1:3] == ["-m", "pip"] for step in calls) and len(calls) == 3
    assert "--require-hashes" in calls[0] and calls[2][3] == "check"
    assert "pip installs the packages" in capsys.readouterr().err
