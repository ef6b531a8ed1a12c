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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.run import fork, interpreter, shortage
from workflow.tradeoff.variants import VARIANTS, flags

SERVER = "workflow.tradeoff.measure.sample:main"
LAST_S = 10  # seconds that a process has for its end


@dataclass(frozen=True)
class Runner:
    """What a process of a role (the cell or its baseline) runs.

    flags: those of ``sample`` that both roles have. fresh: a new interpreter, its engine's, not forked. server: the
    function that serves. model: the folder of the tokenizer, where the texts' tokens are to be shared.
    """

    variant: str
    artifact: Path
    flags: tuple[str, ...]
    fresh: bool = False
    server: str = SERVER
    model: Path | None = None

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
        self.runner, self.ended = runner, None
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
        os.kill(self.pid, signal.SIGCONT)
        try:
            self.channel.sendall((json.dumps({"do": do, **details}) + "\n").encode())
        except BrokenPipeError:
            raise self._death() from None
        result = self._answer()
        self._stop()
        return result

    def _answer(self) -> dict:
        while not select.select([self.channel], [], [], 0.2)[0]:
            if self._over():
                raise self._death()
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
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.ended = status

    def _over(self) -> bool:
        if self.ended is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            self.ended = status if process else None
        return self.ended is not None

    def _death(self) -> Exception:
        """What its end means."""
        self._wait()
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - fork.TAIL))
        tail = self.log.read()
        os.write(2, tail)
        text = tail.decode(errors="replace")
        code = os.waitstatus_to_exitcode(self.ended)
        return fork.failure(code, text, VARIANTS[self.runner.variant], self.runner.artifact, self.before)

    def _wait(self) -> None:
        """Wait for its end, and bring it about where it does not come."""
        deadline = time.monotonic() + LAST_S
        while not self._over():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)

    def close(self) -> None:
        """End it."""
        if not self._over():
            os.kill(self.pid, signal.SIGKILL)
            self._wait()
        self.answers.close()
        self.channel.close()
        self.log.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.close()
