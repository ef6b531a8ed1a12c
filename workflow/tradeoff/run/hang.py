"""A process that gets nowhere is ended from outside: a call that never returns, as on a card, ends by nothing else.

The one at work says what it begins (``at``); the one that waits for it holds that against a ``Limit``. Before it is
killed, with all that it started, it is asked where it stands: Python's stack is written by a signal's handler in C,
which a call that never returns does not hold up.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from workflow.tradeoff.errors import CellFailure

PARENT_DIES, ADOPTS = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of Linux's prctl
SAYS_WHERE = signal.SIGUSR1
SAYING_S = 5  # that a process has to say where it stands
LOOK_S = 5  # between two looks at a process, at most; more is not its time but a pause of the one that looks
LAST_S = 10  # that a process has for its end
DESCRIPTOR = "TRADEOFF_AT"  # environment variable of a new interpreter: where it says what it begins
# of a stack, the package's own lines, innermost first, and where the work of the process begins
FRAME = re.compile(r'File "[^"]*/workflow/tradeoff/(?!errors)([^"]+)", line (\d+) in (\w+)')
BELOW = "/workflow/tradeoff/run/fork.py"
_told: list[int] = []  # this process's descriptor, where another waits for it


@dataclass(frozen=True)
class Limit:
    """Seconds that a stage of a cell may get nowhere, 0 for ever; output: the cell's file, for the reason to name."""

    stage: str = ""
    seconds: float = 0
    output: Path = Path()

    def failure(self, doing: str, stood: str) -> CellFailure:
        """What the tables show. doing: what was begun last; stood: where, as ``end`` tells."""
        return CellFailure(
            "hung",
            f"{self.stage}: {doing}: no progress for {self.seconds:,g} s{stood and f', in {stood}'}, so it was ended: "
            f"raise the config key hung_after_s if it only needs longer, delete {self.output} and run again",
        )


NONE = Limit()


class Wait:
    """What was waited since the last progress, looked at often; the time of a scheduler that suspends all is none."""

    def __init__(self, limit: Limit):
        self.limit, self.waited, self.last = limit, 0.0, time.monotonic()

    def over(self, progress: bool = False) -> bool:
        """Whether nothing came for too long; progress: whether something did since this was asked last."""
        now = time.monotonic()
        self.waited = 0.0 if progress else self.waited + min(now - self.last, LOOK_S)
        self.last = now
        return 0 < self.limit.seconds < self.waited


class Place:
    """Where another process says what it begins: a file of the kernel's that both hold, and its time of writing."""

    def __init__(self):
        self.file = os.memfd_create("at")
        self._seen = self._written()

    def _written(self) -> int:
        return os.fstat(self.file).st_mtime_ns

    def news(self) -> bool:
        """Whether it said something since this was asked last."""
        before, self._seen = self._seen, self._written()
        return before != self._seen

    def words(self) -> str:
        """What it said last."""
        return os.pread(self.file, 1000, 0).partition(b"\0")[0].decode(errors="replace") or "start"

    def close(self) -> None:
        os.close(self.file)


def add_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of a stage that ends what hangs."""
    words = "seconds without progress after which its work is ended; 0: never"
    parser.add_argument("--hung-after-s", type=float, default=0, help=words)


def at(words: str) -> None:
    """Say that this process now begins ``words``, to the one that waits for it, if any does."""
    for file in _told:
        os.pwrite(file, words.encode()[:900] + b"\0", 0)


def begin(place: int | None) -> None:
    """Make this new process one that dies with its parent, keeps what it starts, and says where it stands.

    place: descriptor that ``at`` writes to.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(PARENT_DIES, signal.SIGKILL)  # one that is stopped would otherwise outlive a killed parent
    prctl(ADOPTS, 1)  # what a helper leaves behind is this process's, and found when it is ended
    faulthandler.register(SAYS_WHERE, file=2, all_threads=True)
    _told[:] = [] if place is None else [place]


def end(pid: int, said: Callable[[], str]) -> str:
    """Kill a process that hangs, and all that it started; where it stood, empty where that is not known.

    said: gives what the process has written to its standard error until now.
    """
    known = family(pid)  # before the question, which may wake and end it
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, SAYS_WHERE)
    deadline = time.monotonic() + SAYING_S
    while not (stood := where(said())) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(pid, known)
    reap(pid)
    return stood


def where(text: str) -> str:
    """The function of this package that a stack, the current thread's last in ``text``, stood in."""
    _, current, stack = text.rpartition("Current thread")
    own = stack.partition(BELOW)[0] if current else ""  # of a forked process, without what its parent was at
    found = FRAME.search(own)
    return f"{found[3]} ({'/'.join(found[1].split('/')[-2:])}, line {found[2]})" if found else ""


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, itself first; none where it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(pid: int, known: Iterable[psutil.Process] = ()) -> None:
    """Kill a process with all that it started, and what is ``known`` to be its; stopped first, they start no more.

    It returns when they have ended and hold no memory of the machine or of a card any more, or after LAST_S.
    """
    stopped: set[psutil.Process] = set()
    while new := {*known, *family(pid)} - stopped:
        for one in new:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()
        stopped |= new
    for one in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    deadline = time.monotonic() + LAST_S
    while any(map(lives, stopped)) and time.monotonic() < deadline:
        time.sleep(0.005)


def lives(one: psutil.Process) -> bool:
    """Whether a process has not ended; one that has, and that nobody asked for its status, holds nothing any more."""
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reap(pid: int) -> int | None:
    """Status of a child at its end; None where that does not come in time: one that was killed is held by a driver."""
    deadline = time.monotonic() + LAST_S
    while time.monotonic() < deadline:
        process, status = os.waitpid(pid, os.WNOHANG)
        if process:
            return status
        time.sleep(0.005)
    return None
