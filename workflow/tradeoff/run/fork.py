"""A stage's work in a process of its own, forked off one that has imported the libraries and done nothing with them.

    code, text = fork.run(sample.main, ["--variant", "torch-fp32", ...])

Importing takes seconds, and a fork keeps it; a model, a pool of threads and the GPU are first touched in the forked
process. When that one dies, this one is left to say what of.
"""

import os
import select
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.run import shortage
from workflow.tradeoff.variants import Variant

# whether there is a GPU is asked without touching it, so that the forked processes can
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
TAIL = 20_000  # bytes of a process's last words that are kept


def run(main: Callable[[list[str]], None], arguments: list[str], quiet: bool = False) -> tuple[int, str]:
    """Exit code of ``main(arguments)`` in a forked process, negative for a signal, and the end of its standard error.

    What the process says is passed on as it comes; if quiet, only at its end, and only when it failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        try:
            code, tail = _follow(child, reader, quiet)
        finally:
            os.close(reader)
        if quiet and code:
            os.write(2, tail)
        return code, tail.decode(errors="replace")
    code = 1
    try:
        os.dup2(writer, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        errors.guard(main, arguments)
        code = 0
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _follow(child: int, reader: int, quiet: bool) -> tuple[int, bytes]:
    """Exit code and last words of ``child``, at its end, which helpers of it that hold the pipe may outlive."""
    tail, ended = b"", None
    while True:
        ready, _, _ = select.select([reader], [], [], 0 if ended else 0.05)
        chunk = os.read(reader, 65536) if ready else b""
        if not quiet:
            os.write(2, chunk)
        tail = (tail + chunk)[-TAIL:]
        if ended and not chunk:
            return os.waitstatus_to_exitcode(ended[1]), tail
        if ended is None:
            # the end of the pipe without the end of the process: nothing is left to do but wait for it
            process, status = os.waitpid(child, os.WNOHANG if chunk or not ready else 0)
            ended = (process, status) if process else None


def failure(code: int, text: str, variant: Variant, artifact: Path, before: shortage.Available) -> Exception:
    """What the end of a process means: a UserError of its own, memory, or an error of the cell.

    text: the end of its standard error. before: the memory that was available when it began.
    """
    lines = [line for line in text.splitlines() if line.strip()] or ["no message"]
    if lines[-1].startswith("error: "):
        return UserError(lines[-1].removeprefix("error: "))
    if code == -9:
        words = "the process was killed (signal 9), as when memory runs out; what was available is from before it began"
        return shortage.failure(words, variant, artifact, before)
    if shortage.says_so(lines[-1]):
        return shortage.failure(lines[-1], variant, artifact, before)
    if code < 0:
        return CellFailure("error", f"the process died of signal {-code}: {lines[-1]}")
    return CellFailure("error", lines[-1])
