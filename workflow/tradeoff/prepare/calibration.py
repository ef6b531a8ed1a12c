"""The text that a quantizer learns from: whole as it was fetched, and apart from the text that is scored."""

from collections.abc import Iterable
from pathlib import Path

from workflow.tradeoff import corpus as corpus_file
from workflow.tradeoff import loaded
from workflow.tradeoff.errors import UserError


def read(calibration: Path | None, scored: Path | None, recipe: str) -> dict:
    """The calibration corpus (its JSON as fetched); UserError when it shares a line with the one that is scored, or
    either is not given.

    Nor may either have changed since it was fetched. recipe: what needs it, in words.
    """
    if calibration is None or scored is None:
        raise UserError(f"{recipe} needs a calibration text, and the corpus that it must share no line with")
    corpus, other = (whole(path) for path in (calibration, scored))
    shared = lines(corpus["rows"]) & lines(other["rows"])
    if shared:
        raise UserError(
            f"the calibration text {corpus['name']} shares {len(shared)} lines with the corpus that is scored, such as "
            f"{min(shared)[:60]!r}, and would flatter the figure: give another text"
        )
    return corpus


def whole(path: Path) -> dict:
    """The corpus in ``path``; UserError unless it is the one that was fetched."""
    found = corpus_file.read(path)
    loaded.check_corpus(path, found)
    return found


def lines(rows: Iterable[str]) -> set[str]:
    """The lines of a corpus, without blanks around them and without empty ones."""
    return {line.strip() for row in rows for line in row.splitlines() if line.strip()}


def pieces(rows: Iterable[str], tokenizer, length: int, count: int) -> list[str]:
    """The first ``count`` pieces of a text, whole lines, each of at least ``length`` tokens; UserError for too short
    a text.
    """
    found: list[str] = []
    held = ""
    for line in (line for row in rows for line in row.splitlines()):
        held += f"{line}\n"
        # a token is a byte at least: most lines are told apart from a piece without counting them
        if len(held.encode()) < length or len(tokenizer(held.strip())["input_ids"]) < length:
            continue
        found.append(held.strip())
        if len(found) == count:
            return found
        held = ""
    raise UserError(
        f"the calibration text has {len(found)} pieces of {length} tokens and {count} are asked for: give a longer "
        "one, or lower samples or length"
    )
