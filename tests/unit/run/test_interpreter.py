"""The Python of an engine's process: the study's, or that of an environment of the engine's own."""

import json
import sys
from types import SimpleNamespace

import pytest

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.evaluate import __main__ as evaluate
from workflow.tradeoff.measure.process import Runner
from workflow.tradeoff.run import environment, fork, interpreter
from workflow.tradeoff.variants import VARIANTS

VLLM = VARIANTS["vllm-fp16"]


@pytest.fixture
def python(tmp_path, monkeypatch):
    """A Python at the place of vLLM's, that leaves a trace."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / ".venv-vllm" / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {sys.executable} "$@"\n')
    made.chmod(0o755)
    return made


def test_an_engine_without_an_environment_runs_in_this_python():
    assert interpreter.of(VARIANTS["torch-fp16"]) == sys.executable
    assert interpreter.state(VARIANTS["torch-fp16"]) == ""


def test_where_it_is_missing_the_cell_says_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert interpreter.state(VLLM) == "absent"
    with pytest.raises(CellFailure, match=r"unsupported: .*`python envs/install.py vllm .venv-vllm`"):
        Runner("vllm-fp16", tmp_path, (), fresh=True).start()


def test_a_fresh_process_is_of_the_engines_python(python, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(evaluate.__file__).partition("/workflow/")[0])
    assert interpreter.of(VLLM) == str(python)
    code, text = fork.run("tests.serving:says", ["a"], fresh=True, python=interpreter.of(VLLM))
    assert (code, text.split()[-1:]) == (0, ["a"]) and (tmp_path / "ran").exists()


def test_a_newer_version_is_a_reason_to_run_again(python):
    assert interpreter.state(VLLM) == "of its own"
    info = python.parents[1] / "lib/python3.12/site-packages/vllm-0.23.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.23.0\n")
    assert interpreter.state(VLLM) == "0.23.0"


def test_a_score_of_another_python_is_compared_in_the_studys_environment(tmp_path):
    """Its own packages stand beside: they are what the variant is, and no difference that forbids a comparison."""
    output = tmp_path / "quality.json"
    output.write_text(json.dumps({"status": "ok", "environment": {"libraries": {"vllm": "0.23.0"}, "digest": "0"}}))
    evaluate._settle(SimpleNamespace(output=output, device="cpu", threads=1))
    result = json.loads(output.read_text())
    assert result["environment"]["digest"] == environment.collect("cpu", 1)["digest"]
    assert result["engine_libraries"] == {"vllm": "0.23.0"} and result["status"] == "ok"
