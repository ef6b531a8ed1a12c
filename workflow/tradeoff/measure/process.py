"""A process that holds a loaded artifact and takes its turns when it is asked: stopped by the kernel until then.

    with Process(runner, fresh=False) as process:
        process.ask("turn", load={"prompt_tokens": 32, "new_tokens": 32})

While it is stopped none of its threads can run, so it costs the one whose turn it is nothing but the memory that it
holds; its engine is as it would be deployed, spinning threads included.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.run import fork, hang, interpreter, shortage
from workflow.tradeoff.variants import VARIANTS, flags

SERVER = "workflow.tradeoff.measure.sample:main"
DOING = {
    "warm": "untimed generations",
    "turn": "a timed generation",
    "study": "the study's protocol",
    "memory": "its memory",
    "held": "its cache",
    "proof": "its proof",
}  # what a command asks for, in words


@dataclass(frozen=True)
class Runner:
    """What a process of a role (the cell or its baseline) runs.

    flags: those of ``sample`` that both roles have. fresh: a new interpreter, its engine's, not forked. server: the
    function that serves. model: the folder of the tokenizer, where the texts' tokens are to be shared. limit: how long
    it may take for one answer.
    """

    variant: str
    artifact: Path
    flags: tuple[str, ...]
    fresh: bool = False
    server: str = SERVER
    model: Path | None = None
    limit: hang.Limit = hang.NONE

    def start(self, meanwhile: Callable[[], None] = lambda: None) -> "Process":
        """A new process; ``meanwhile`` is done while it loads."""
        return Process(self, meanwhile)

    def warm(self) -> None:
        """Have here what the processes that follow would each import, and the tokens; nothing where none is forked.

        What fails here is not judged: it fails in the process too, which says what that means.
        """
        if self.fresh:
            return
        with fork.importing(), contextlib.suppress(Exception):
            # not before the thread counts are set
            from workflow.tradeoff import engines
            from workflow.tradeoff.measure import sample

            if self.model:
                sample.share(self.model)
            engines.warm(VARIANTS[self.variant], self.artifact)

    def passed(self) -> None:
        """A process has run it: native libraries are safe to have here, and its checks need no repetition."""
        if not self.fresh:
            from workflow.tradeoff import engines

            with fork.importing():
                engines.passed(VARIANTS[self.variant], self.artifact)


class Process:
    """A live process of ``runner``, loaded and stopped; ``ready``: what it said when it had loaded.

    Raises CellFailure when it cannot load, or dies; UserError for a study that it finds broken.
    """

    def __init__(self, runner: Runner, meanwhile: Callable[[], None] = lambda: None):
        self.runner, self.ended, self.doing = runner, None, "load"
        python = interpreter.of(VARIANTS[runner.variant]) if runner.fresh else ""
        # not a pipe: nobody reads it while it speaks
        self.log = os.fdopen(os.memfd_create("log"), "w+b")
        self.before = shortage.on_host()
        self.channel, theirs = socket.socketpair()
        known = flags(runner.variant)  # of a config's own variant a new interpreter knows nothing
        told = [*known, "--variant", runner.variant, "--artifact", str(runner.artifact), *runner.flags]
        with theirs:
            number = theirs.fileno()
            arguments = [*told, "--channel", str(number)]
            self.pid = fork.start(runner.server, arguments, self.log.fileno(), runner.fresh, [number], python)
        self.answers = self.channel.makefile("r")
        try:
            meanwhile()
            self.ready = self._answer()
            self._stop()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **details) -> dict:
        """The answer to a command; the process runs from now until it has given it."""
        self.doing = words(do, details.get("load"))
        os.kill(self.pid, signal.SIGCONT)
        try:
            self.channel.sendall((json.dumps({"do": do, **details}) + "\n").encode())
        except BrokenPipeError:
            raise self._death() from None
        result = self._answer()
        self._stop()
        return result

    def _answer(self) -> dict:
        wait = hang.Wait(self.runner.limit)
        while not select.select([self.channel], [], [], 0.2)[0]:
            if self._over():
                raise self._death()
            self._lose_patience(wait)
        line = self.answers.readline()
        if not line:
            raise self._death()
        result = json.loads(line)
        status, reason = result.pop("status"), result.pop("reason")
        if status != "ok":
            raise CellFailure(status, reason)
        return result

    def _stop(self) -> None:
        """Stop it, and wait until it is."""
        os.kill(self.pid, signal.SIGSTOP)
        wait = hang.Wait(self.runner.limit)
        while not (found := os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG))[0]:
            time.sleep(0.0005)
            self._lose_patience(wait)
        if not os.WIFSTOPPED(found[1]):
            self.ended = found[1]

    def _lose_patience(self, wait: hang.Wait) -> None:
        """End it, and raise CellFailure ``hung``, once it has taken too long."""
        if wait.over():
            stood = hang.end(self.pid, lambda: self._said().decode(errors="replace"))
            self.ended = signal.SIGKILL
            os.write(2, self._said())
            raise wait.limit.failure(self.doing, stood)

    def _over(self) -> bool:
        if self.ended is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            self.ended = status if process else None
        return self.ended is not None

    def _death(self) -> Exception:
        """What its end means."""
        self._wait()
        tail = self._said()
        os.write(2, tail)
        text = tail.decode(errors="replace")
        code = os.waitstatus_to_exitcode(self.ended)
        return fork.failure(code, text, VARIANTS[self.runner.variant], self.runner.artifact, self.before)

    def _said(self) -> bytes:
        """The end of what it wrote to its standard error."""
        file = self.log.fileno()
        return os.pread(file, fork.TAIL, max(0, os.fstat(file).st_size - fork.TAIL))

    def _wait(self) -> None:
        """Wait for its end, and bring it about where it does not come; one that its driver holds is given up."""
        for bring_about in (lambda pid: None, hang.kill):
            if not self._over():
                bring_about(self.pid)
                self.ended = hang.reap(self.pid)
        if self.ended is None:
            self.ended = signal.SIGKILL

    def close(self) -> None:
        """End it."""
        if not self._over():
            hang.kill(self.pid)
            self._wait()
        self.answers.close()
        self.channel.close()
        self.log.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def words(do: str, load: Mapping | None) -> str:
    """What a command asks for."""
    if not load:
        return DOING.get(do, do)
    many = load.get("sequences", 1)
    at_once = f"{many} sequences of " if many > 1 else ""
    return f"{DOING[do]}, {at_once}{load['prompt_tokens']} prompt and {load['new_tokens']} new tokens"
