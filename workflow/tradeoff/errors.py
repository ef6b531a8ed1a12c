"""How a stage ends when it cannot go on: one line that names the cause and the remedy."""

import argparse
import errno
import os
import sys
import textwrap
from pathlib import Path

NO_TEMPORARY = "No usable temporary directory"  # tempfile's words


class UserError(Exception):
    """A broken study: the message is one line, names the key or file, and says what to do."""


class CellFailure(Exception):
    """A cell that cannot give a figure. It is data: written as ``status`` and ``reason``, never a crash.

    status is one of STATUSES other than ``ok``.
    """

    def __init__(self, status: str, reason: str):
        if status not in STATUSES or status == "ok":
            raise ValueError(f"unknown status {status!r}")
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


STATUSES = (
    "ok",
    "out_of_memory",
    "unsupported",
    "hung",
    "mismatched",
    "not_quantized",
    "not_cached",
    "fell_back",
    "diverged",
    "disturbed",
    "not_applicable",
    "error",
)


def described(error: BaseException) -> str:
    """One line for a reader: type and first line of an error, and the line of code that raised it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    words = textwrap.shorten(f"{type(error).__name__}: {lines[0]}", 300, placeholder=" …")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return words
    path = Path(trace.tb_frame.f_code.co_filename)
    return f"{words} ({'/'.join(path.parts[-2:])}, line {trace.tb_lineno})"


def full_disk(error: BaseException) -> bool:
    """Whether ``error`` is a full disk or temporary folder, which is no cell's fault: it ends the run."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or (isinstance(error, FileNotFoundError) and NO_TEMPORARY in str(error))


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; the error's type where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help opens with the module's docstring."""
    return argparse.ArgumentParser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main) -> None:
    """Run a stage's ``main(argv)``; a UserError, or a full disk, ends it in one line and exit code 1.

    The first line of the log names the image that the stage runs in, or the host.
    """
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    print(f"image: {image or 'host'}", file=sys.stderr, flush=True)
    guard(main, sys.argv[1:])


def guard(main, argv: list[str]) -> None:
    """``main(argv)``, whose UserError, or a full disk, is SystemExit with one line."""
    try:
        main(argv)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if not full_disk(error):
            raise
        if NO_TEMPORARY in str(error):
            sys.exit("error: no temporary folder can be written: free some of /tmp, or name another by TMPDIR")
        sys.exit(f"error: the disk is full, seen when writing {error.filename or 'a file'}: free some and run again")
