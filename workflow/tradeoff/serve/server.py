"""A server started by the command that ``deploy/`` gives, on this machine alone, that ends with whoever started it."""

import contextlib
import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from workflow.tradeoff import asking
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run.hang import PARENT_DIES

START_S = 300  # within which a server must have loaded its model
END_S = 10


def tied(number: int):
    """For ``preexec_fn``: the new process gets the signal ``number`` when the one that started it is gone."""
    parent = os.getpid()

    def tie():
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DIES, number)
        if os.getppid() != parent:  # gone before the tie
            os._exit(1)

    return tie


def words(command: str) -> list[str]:
    """The command's words for a free port; ``python`` is the one that runs this."""
    first, *rest = shlex.split(command)
    return [sys.executable if first == "python" else first, *rest, "--port", "0"]


@contextlib.contextmanager
def running(command: str, seconds: float = START_S) -> Iterator[str]:
    """The base address of a server while it runs.

    Raises UserError when it ends, or says no address, within ``seconds``.
    """
    process = subprocess.Popen(
        words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=tied(signal.SIGKILL)
    )
    try:
        line = _first_line(process, seconds)
        if line is None or not line.startswith("http://127.0.0.1:"):
            what = f"said nothing in {seconds:g} s" if line is None else f"said {line!r}" if line else "ended"
            raise UserError(f"the server {what} instead of its address: run `{command}` by hand to see why")
        yield line.removesuffix(asking.TEXT)
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _first_line(process: subprocess.Popen, seconds: float) -> str | None:
    """The first line that it says, empty when it closed without; None when the time is over."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if waiting.select(timeout=0.2):
                return process.stdout.readline().strip()
    return None
