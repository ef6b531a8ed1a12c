"""A stage's work in a process of its own, so that one that dies leaves another to say what of.

    code, text = fork.run("workflow.tradeoff.evaluate.__main__:main", ["--variant", "torch-fp32", ...])

On the CPU it is forked off one that has imported the libraries and done nothing with them: importing takes seconds, and
a fork keeps it. A process that will use a GPU is started ``fresh``: a package that was imported may have touched CUDA,
which no forked process can use then. By hand, and so is a fresh one started:

    python -m workflow.tradeoff.run.fork workflow.tradeoff.evaluate.__main__:main --variant torch-fp32 ...
"""

import gc
import importlib
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager

from workflow.tradeoff import errors
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.run import hang, shortage
from workflow.tradeoff.variants import Variant

# whether there is a GPU is asked without touching it, so that the forked processes can
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
TAIL = 20_000  # bytes of a process's last words that are kept


Main = Callable[[list[str]], None]


def start(
    target: str | Main,
    arguments: list[str],
    stderr: int,
    fresh: bool,
    keep: Sequence[int] = (),
    python: str = "",
    place: int | None = None,
) -> int:
    """Id of a new process that does ``target(arguments)`` and dies with this one.

    target: ``package.module:function``, or for a fork the function itself. stderr: file descriptor that its standard
    error goes to. fresh: a new interpreter instead of a fork, ``python`` if that is another than this one. keep:
    further descriptors that it has under the same numbers. place: one of these, that ``hang.at`` writes to.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if fresh:
        command = [python or sys.executable, "-m", "workflow.tradeoff.run.fork", target, *arguments]
        told = {} if place is None else {hang.DESCRIPTOR: str(place)}
        process = subprocess.Popen(
            command, stderr=stderr, stdin=subprocess.DEVNULL, pass_fds=keep, env={**os.environ, **told}
        )
        process.returncode = 0  # it is waited for by its id, as a forked one is
        return process.pid
    main = target if callable(target) else found(target)  # imported here, so that the next ones need not
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(stderr, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        perform(main, arguments, place)
        code = 0
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def perform(main: Main, arguments: list[str], place: int | None = None) -> None:
    """``main(arguments)`` in this new process; a UserError is SystemExit with one line."""
    hang.begin(place)
    errors.guard(main, arguments)


def found(target: str) -> Main:
    """The function that ``package.module:function`` names."""
    module, _, function = target.partition(":")
    with importing():
        return getattr(importlib.import_module(module), function)


@contextmanager
def importing():
    """Imports without collecting garbage, of which they make none, in seven eighths of the time.

    What is there at the end no collection looks at again, so that a forked process shares the pages that it is on.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run(
    target: str | Main,
    arguments: list[str],
    quiet: bool = False,
    fresh: bool = False,
    python: str = "",
    limit: hang.Limit = hang.NONE,
) -> tuple[int, str]:
    """Exit code of ``target(arguments)`` in a process of its own, negative for a signal, and its last words.

    These are the end of its standard error. What the process says is passed on as it comes; if quiet, only at its
    end, and only when it failed. One that gets nowhere (``hang.at``) for longer than ``limit`` is ended, with all that
    it started: CellFailure ``hung``.
    """
    reader, writer = os.pipe()
    place = hang.Place()
    child = start(target, arguments, writer, fresh, [place.file], python, place.file)
    os.close(writer)
    try:
        code, tail = _follow(child, reader, quiet, place, limit)
    finally:
        os.close(reader)
        place.close()
    if quiet and code:
        os.write(2, tail)
    return code, tail.decode(errors="replace")


def _follow(child: int, reader: int, quiet: bool, place: hang.Place, limit: hang.Limit) -> tuple[int, bytes]:
    """Exit code and last words of ``child``, at its end, which helpers of it that hold the pipe may outlive."""
    tail, ended, wait = b"", None, hang.Wait(limit)

    def read(wait_s: float) -> bytes:
        nonlocal tail
        ready, _, _ = select.select([reader], [], [], wait_s)
        chunk = os.read(reader, 65536) if ready else b""
        if not quiet:
            os.write(2, chunk)
        tail = (tail + chunk)[-TAIL:]
        if ready and not chunk:  # the end of the pipe without the end of the process
            time.sleep(wait_s)
        return chunk

    def said() -> str:
        read(0)
        return tail.decode(errors="replace")

    while True:
        chunk = read(0 if ended else 0.05)
        if ended and not chunk:
            return os.waitstatus_to_exitcode(ended[1]), tail
        if ended is None:
            process, status = os.waitpid(child, os.WNOHANG)
            ended = (process, status) if process else None
        if ended is None and wait.over(place.news()):
            stood = hang.end(child, said)
            if quiet:
                os.write(2, tail)
            raise limit.failure(place.words(), stood)


def failure(code: int, text: str, variant: Variant, artifact, before: shortage.Available) -> Exception:
    """What the end of a process means: a UserError of its own, memory, or an error of the cell.

    text: the end of its standard error. artifact: the folder that it ran. before: the memory that was available when
    it began.
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


if __name__ == "__main__":
    descriptor = os.environ.pop(hang.DESCRIPTOR, None)  # of this process, and of none that it starts
    perform(found(sys.argv[1]), sys.argv[2:], None if descriptor is None else int(descriptor))
