"""Words that more than one room uses: numbers for people, names of conventions, objectives and verdicts."""

import math
import re
from collections.abc import Iterable

from workflow.tradeoff.errors import UserError

EMPTY = "–"  # where there is no figure
CONVENTION = re.compile(
    r"windows-(?P<windows>\d+)|strided-(?P<length>\d+)-(?P<stride>\d+)|word(-(?P<word>\d+))?|study|llama\.cpp"
)
CONVENTIONS = "windows-N, strided-N-S, study, word, word-N, llama.cpp"

WHOLE = 2048  # tokens that stand for a window as long as the context, where its length is not known yet

# a scenario's objective: what the best variant is
OBJECTIVES = {
    "speed": "fastest",
    "memory": "smallest",
    "quality": "closest to the baseline",
    "balanced": "best product of speed, memory and accuracy",
    "throughput": "most tokens a second, prompts included",
}

# the study's scenarios that an answer leads with, and what each is for
LEADS = {"balanced": "For everyday use", "speed-critical": "For speed", "memory-constrained": "For the least memory"}

# of a claim of the study
STANDS, FALLS, NOT_CHECKED = "stands", "does not stand", "not checked"
VERDICTS = (STANDS, FALLS, NOT_CHECKED)


def number(value) -> str:
    """A number in at most four significant digits, never in scientific notation above 1e-4; integers whole."""
    if value is None or math.isnan(value):
        return EMPTY
    value = float(value) + 0.0  # minus zero becomes zero
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2g}"
    text = f"{value:.4g}"
    return text if "e" not in text else f"{value:.6f}".rstrip("0")


def brief(value) -> str:
    """A number in at most three significant digits, where the fourth would be noise."""
    return EMPTY if value is None or math.isnan(value) else number(float(f"{value:.3g}"))


def convention(name: str) -> re.Match:
    """The parsed name; UserError when it names no convention."""
    match = CONVENTION.fullmatch(name)
    if not match:
        raise UserError(f"evaluate.conventions: unknown convention {name!r}: one of {CONVENTIONS}")
    length, stride = match["windows"] or match["length"] or match["word"], match["stride"]
    if (length and int(length) < 2) or (stride and not 1 <= int(stride) < int(length)):
        raise UserError(f"evaluate.conventions: {name!r}: a window has at least 2 tokens, a stride 1 to N - 1")
    return match


def longest_window(conventions: Iterable[str]) -> int:
    """Tokens of the longest window that conventions score; ``word``, which takes the whole context, counts as WHOLE."""
    found = [convention(name) for name in conventions]
    named = [match["windows"] or match["length"] or match["word"] for match in found]
    return max(
        int(length) if length else WHOLE if match[0] == "word" else 512
        for match, length in zip(found, named, strict=True)
    )
