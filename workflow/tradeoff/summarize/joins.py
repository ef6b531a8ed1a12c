"""The one join: speed, memory and quality of a cell are of the same bytes, and so is what they are compared with.

A cell whose digests do not agree keeps its row and gives no figure, neither of the one side nor of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from workflow.tradeoff import files, loaded
from workflow.tradeoff.summarize.cells import Cell

HEAD = ("schema", "study", "model", "variant", "baseline", "device", "threads", "corpus", "digests", "environment")
# what a part with figures must name, beside the scores of a quality that is compared with another one's
NAMED = {"speed": ("artifact", "model", "baseline"), "quality": ("artifact", "model", "baseline", "corpus", "scores")}


def joined(cells: Sequence[Cell], corpus: str | None = None) -> list[Cell]:
    """The cells, those without their figures whose bytes do not agree. corpus: the study's digest, if it is known."""
    baselines = {cell.model: cell for cell in cells if cell.variant == cell.baseline}
    found = []
    for cell in cells:
        reasons = [*_unnamed(cell), *_differences(cell, baselines.get(cell.model), corpus)]
        found.append(_emptied(cell, "; ".join(reasons)) if reasons else cell)
    return found


def shown(part: Mapping) -> bool:
    """Whether there are figures in a speed or quality file."""
    return bool(part.get("protocols") or part.get("conventions"))


def _unnamed(cell: Cell) -> list[str]:
    return [
        f"the {kind} does not say of which {role} it is: delete its file and run again"
        for kind, roles in NAMED.items()
        for role in roles
        if shown(getattr(cell, kind)) and not getattr(cell, kind).get("digests", {}).get(role)
    ]


def _differences(cell: Cell, baseline: Cell | None, corpus: str | None) -> Iterable[str]:
    """Each pair of digests that should be one, in words that name both; what failed before it had any is no pair."""
    speed, quality = (part.get("digests", {}) for part in (cell.speed, cell.quality))
    for role in ("artifact", "model"):
        yield from _pair(role, "the speed is of", speed.get(role), "the quality of", quality.get(role))
    ours = speed.get("model") or quality.get("model")
    yield from _pair("model", "the cell is of", ours, "the study has", cell.facts.get("digest"))
    yield from _pair("corpus", "the quality is of", quality.get("corpus"), "the study has", corpus)
    if quality.get("scores") and cell.tokens is not None and cell.tokens.is_file():
        there = files.sha256(cell.tokens)
        yield from _pair("scores", "the quality names", quality["scores"], f"{cell.tokens.name} is", there)
    if baseline is None or baseline is cell:
        return
    theirs = [part.get("digests", {}) for part in (baseline.speed, baseline.quality)]
    for words, own, other in zip(("the speed", "the quality"), (speed, quality), theirs, strict=True):
        said, itself = f"{words} is compared with", f"{words} of {baseline.variant} is of"
        yield from _pair("baseline", said, own.get("baseline"), itself, other.get("artifact"))
    for role, named in (("scores", "baseline_scores"), ("corpus", "corpus")):
        said, itself = "the quality is compared with", f"{baseline.variant} has"
        yield from _pair(f"{role} of the baseline", said, quality.get(named), itself, theirs[1].get(role))


def _pair(what: str, said: str, one: str | None, itself: str, other: str | None) -> Iterable[str]:
    if one and other and one != other:
        yield f"{what}: {said} {loaded.short(one)}, {itself} {loaded.short(other)}"


def _emptied(cell: Cell, reason: str) -> Cell:
    """The cell without figures; the reason is told once, and a part that had failed keeps its own."""
    parts = {}
    for kind in ("speed", "quality"):
        part = getattr(cell, kind)
        if shown(part):
            told = {"status": "mismatched", "reason": "" if "speed" in parts else reason}
            parts[kind] = {name: part[name] for name in HEAD if name in part} | told
    return replace(cell, tokens=None, **parts)
