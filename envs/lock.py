"""Write the locks of this folder from their ``.in`` files: ``make lock``, or ``python envs/lock.py [--upgrade]``.

A package keeps the version of the present lock as long as the ``.in`` files allow it; ``--upgrade`` takes the newest
that they allow. Needs ``uv`` (``make env`` brings it). The CPU build of torch is looked for where pip is told to look
(``PIP_FIND_LINKS``), else in PyTorch's own index of CPU builds.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ENVS = Path(__file__).resolve().parent
HEADER = "# Written by `make lock` from {source}. Do not edit.\n"
IMAGE = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
HOST = ["--python-version", "3.11", "--universal"]
# What torch's build for CUDA brings and its build for the CPU does not: pinned, but only installed where torch asks.
BROUGHT_BY_TORCH = re.compile(r"(torch|triton|nvidia-(?!ml-py).+|cuda-.+)==")


def compile_lock(uv: str, source: str, lock: Path, present: list[Path], *flags: str) -> list[str]:
    """Resolve ``source`` into ``lock``, preferring the versions of the ``present`` locks; the lines, one package each.

    Raises CalledProcessError when there is no solution; uv has then said why.
    """
    lock.write_text("".join(path.read_text() for path in present if path.exists()))
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *flags, source, "--output-file", lock]
    subprocess.run(command, cwd=ENVS, check=True)
    return [line for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line)]


def name(line: str) -> str:
    return line.split("==")[0]


def omit(lines: list[str]) -> list[str]:
    return [flag for line in lines for flag in ("--no-emit-package", name(line))]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="newest versions that the .in files allow")
    upgrade = parser.parse_args(argv).upgrade
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        sys.exit("error: uv is not on PATH: run `make lock`, or `pip install uv`")

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft"

        def write(lock: str, source: str, *flags: str, header: str = "") -> None:
            compile_lock(uv, source, draft, [] if upgrade else [ENVS / lock], "--generate-hashes", *flags)
            (ENVS / lock).write_text(HEADER.format(source=source) + header + draft.read_text())
            print(f"envs/{lock}", flush=True)

        write("uv.lock", "uv.in", *HOST)
        present = [] if upgrade else [ENVS / "host.lock", ENVS / "torch.lock"]
        everything = compile_lock(uv, "host.in", draft, present, *HOST)
        of_torch = [line for line in everything if BROUGHT_BY_TORCH.match(line)]
        note = (
            "# A constraints file for torch and what its CUDA build brings: envs/README.md says why it has no hashes.\n"
        )
        (ENVS / "torch.lock").write_text(HEADER.format(source="host.in") + note + "\n".join(of_torch) + "\n")
        print("envs/torch.lock", flush=True)
        write("host.lock", "host.in", *HOST, *omit(of_torch))
        host = ["--constraints", "host.lock", "--constraints", "torch.lock"]
        # a package that host.lock has under a condition only may be needed without it
        held = [line for line in everything if line in of_torch or ";" not in line]
        write("test.lock", "test.in", *HOST, *host, *omit(held), header="# Only what it adds to host.lock.\n")
        write("serve.lock", "serve.in", *HOST)
        write("vllm.lock", "vllm.in", *HOST, "--only-binary", ":all:")
        wheels = os.environ.get("PIP_FIND_LINKS")
        cpu_build = ["--find-links", wheels] if wheels else ["--torch-backend", "cpu"]
        write("cpu.lock", "cpu.in", *IMAGE, "--constraints", "host.lock", *cpu_build)
        write("cuda.lock", "cuda.in", *IMAGE, "--constraints", "host.lock")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
