"""One run at a time in a folder, whatever way the last one ended.

    held = running.hold(Path(".snakemake/run.lock"), Path.cwd())

Snakemake's own lock is a file that outlives a kill, and asks for --unlock. This one is the kernel's: it is gone with
the process that holds it, so the same command takes a killed run up.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import psutil

from workflow.tradeoff.errors import UserError

STAGES = "workflow.tradeoff."
WITH_VERBS = ("fetch", "prepare")  # what such a stage does stands in the word behind its name


def check_place(checkout: Path, results: Path) -> None:
    """Raise UserError unless this runs in the checkout and ``results``, below it, can be written."""
    here = Path.cwd()
    if here.resolve() != checkout.resolve():
        raise UserError(
            f"this runs in {here}, and the rules run in the checkout, {checkout}: leave --directory out, or link "
            "results/ to a folder elsewhere"
        )
    folder = here / results
    while not folder.exists() and not folder.is_symlink():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} is no folder that can be written: make it one, or link results/ to one elsewhere")


def hold(lock: Path, folder: Path) -> TextIO:
    """Lock ``folder`` until the file that is returned is closed, and wait until no stage of a killed run writes in it.

    UserError when another run holds the lock.
    """
    held = lock.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise UserError("another run works in this folder: wait for it, or use a copy of the folder") from None
    told: set[int] = set()
    # a kill of Snakemake alone leaves the stage that it had begun at work, and two would write the same files
    while left := leftovers(folder):
        for process, stage in left.items():
            if process not in told:
                line = f"waiting for process {process} to end: {stage}, left by a killed run or started by hand"
                print(line, file=sys.stderr, flush=True)
        told |= set(left)
        time.sleep(0.2)
    return held


def last_words(logs: Path, since: float) -> list[str]:
    """The last line of each log that was written after ``since``, in seconds of the epoch, and ends in an error."""
    found = []
    for log in sorted(logs.rglob("*.log")):
        if log.stat().st_mtime >= since and (lines := log.read_text(errors="replace").splitlines()):
            found += [lines[-1]] if lines[-1].startswith("error: ") else []
    return found


def leftovers(folder: Path) -> dict[int, str]:
    """Processes other than this one that run a stage in ``folder``: id and name of the stage."""
    found = {}
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []  # None where another user's process cannot be read
        places = [place for place, word in enumerate(words[:4]) if word.startswith(STAGES)]
        if places and process.info["cwd"] == str(folder.resolve()) and process.pid != os.getpid():
            stage, *verb = words[places[0] : places[0] + 2]
            stage = stage.removeprefix(STAGES)
            found[process.pid] = " ".join([stage, *verb]) if stage in WITH_VERBS else stage
    return found
