"""Install the packages of the locks into the environment of the Python that runs this: ``make env``, ``make test``.

    .venv/bin/python envs/install.py host     # uv itself, host.lock, and torch as torch.lock pins it
    .venv/bin/python envs/install.py test     # what test.lock adds
    .venv/bin/python envs/install.py serve .venv-serve     # serve.lock, into an environment of its own
    .venv/bin/python envs/install.py vllm .venv-vllm       # vllm.lock, the same, for the variants named vllm-

uv installs: it links files from its cache instead of copying them. It does not read pip's settings, so those that say
where packages come from are handed to it. Where uv cannot be had, pip installs the same files.
"""

import ast
import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

ENVS = Path(__file__).resolve().parent
# pip's setting, uv's variable, and what stands between several values there
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "cert": ("SSL_CERT_FILE", ""),
    "no-index": ("UV_NO_INDEX", ""),
}
# pip takes the best version of all places; uv would take only the first place that has the package
DEFAULTS = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_LINK_MODE": "hardlink"}


def uv_environment(listed: str, present: Mapping[str, str]) -> dict[str, str]:
    """The variables ``present``, and for uv what ``pip config list`` printed (``listed``); uv's own are kept.

    A line is ``section.key='value'``; several values of one key stand in lines or words. Variables (``:env:``) go
    before files, and ``install`` before ``global``, as in pip.
    """
    ranks, values = {":env:": 2, "install": 1, "global": 0}, {}
    for line in listed.splitlines():
        found = re.fullmatch(r"(:env:|\w+)\.([\w-]+)=(['\"].*['\"])", line.strip())
        if found and found[1] in ranks and found[2] in SETTINGS:
            variable, between = SETTINGS[found[2]]
            words = ast.literal_eval(found[3]).split()
            rank = ranks[found[1]]
            if words and rank >= values.get(variable, (-1,))[0]:
                values[variable] = rank, between.join(words) if between else words[0]
    return {**DEFAULTS, **{variable: value for variable, (_, value) in values.items()}, **present}


def bootstrap() -> Path | None:
    """uv beside this Python, installed by pip if need be; None where there is none for this machine."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        subprocess.run([*PIP, "--no-deps", "--require-hashes", "--requirement", ENVS / "uv.lock"], check=False)
    return uv if uv.exists() else None


PIP = [sys.executable, "-m", "pip", "install", "--quiet"]
STEPS = {
    "host": [
        ["--no-deps", "--require-hashes", "--requirement", ENVS / "host.lock"],
        ["--constraint", ENVS / "torch.lock", "torch"],
    ],
    "test": [["--no-deps", "--require-hashes", "--requirement", ENVS / "test.lock"]],
    "serve": [["--no-deps", "--require-hashes", "--requirement", ENVS / "serve.lock"]],
    "vllm": [["--no-deps", "--require-hashes", "--requirement", ENVS / "vllm.lock"]],
}


def main(argv: list[str]) -> None:
    if len(argv) not in (1, 2) or argv[0] not in STEPS:
        sys.exit(f"error: name what to install, one of {', '.join(STEPS)}, and maybe a folder for a new environment")
    uv, python = bootstrap(), sys.executable
    if argv[1:]:
        venv.create(argv[1], clear=True, with_pip=uv is None)
        python = os.path.join(argv[1], "bin", "python")
    if uv is None:
        print("uv cannot be installed here: pip installs the packages, which takes some two minutes", file=sys.stderr)
        pip = [python, "-m", "pip"]
        install, check, environment = [*pip, "install", "--quiet"], [*pip, "check"], None
    else:
        listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
        environment = uv_environment(listed.stdout, os.environ)
        there = ["--python", python]
        install, check = [uv, "pip", "install", *there, "--quiet"], [uv, "pip", "check", *there, "--quiet"]
    for step in (*([*install, *flags] for flags in STEPS[argv[0]]), check):
        done = subprocess.run(step, env=environment)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
