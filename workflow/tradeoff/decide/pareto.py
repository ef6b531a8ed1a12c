"""The Pareto front of a model's variants over decode speed, memory and ΔNLL, as far as the intervals tell."""

import math
from collections.abc import Mapping, Sequence

# (column, sign): speed as the paired speedup, in which the machine's drift has cancelled out
CRITERIA = (("speedup", 1), ("memory_mb", -1), ("delta_nll", -1))
# nats a token: float32's own rounding moves a loss by less than this, and no one who deploys a model can tell
NEGLIGIBLE = 1e-5
FLOOR = {"speedup": 0.0, "memory_mb": 0.0, "delta_nll": NEGLIGIBLE}


def span(row: Mapping, column: str, sign: int) -> tuple[float, float]:
    """(worst, best) of a criterion, more being better. Memory is counted and has no width.

    Where a figure has no interval nothing is known of it: it may be anything.
    """
    if column == "memory_mb":
        return sign * row[column], sign * row[column]
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    if math.isnan(low) or math.isnan(high):
        return -math.inf, math.inf
    return (low, high) if sign > 0 else (-high, -low)


def dominates(one: Mapping, other: Mapping, criteria: Sequence[tuple[str, int]] = CRITERIA) -> bool:
    """Whether ``one`` is better or equal everywhere and better somewhere, by whole intervals.

    On each criterion the worst end of ``one`` must reach the best end of ``other``, to within FLOOR; a tie does not.
    """
    better = False
    for column, sign in criteria:
        worst, (_, best) = span(one, column, sign)[0], span(other, column, sign)
        if worst < best - FLOOR[column]:
            return False
        better |= worst > best + FLOOR[column]
    return better


def seems_better(one: Mapping, other: Mapping, criteria: Sequence[tuple[str, int]] = CRITERIA) -> bool:
    """The same by the values alone, and by whole intervals somewhere: what more replicates might decide."""
    clear = False
    for column, sign in criteria:
        if sign * one[column] < sign * other[column] - FLOOR[column]:
            return False
        clear |= span(one, column, sign)[0] > span(other, column, sign)[1]
    return clear


def front(rows: Sequence[Mapping]) -> list[dict]:
    """For each row of one model: on_front, dominated_by, and by which others it is beaten but for the noise.

    rows: summary rows of the cells that may be compared. A model whose text was never scored (random weights) is
    judged by speed and memory alone. A reference that nobody serves beats nobody, and stands beside the front.
    """
    scored = any(not math.isnan(row["delta_nll"]) for row in rows)
    criteria = CRITERIA if scored else CRITERIA[:2]
    rows = [row for row in rows if all(not math.isnan(row[column]) for column, _ in criteria)]
    found = []
    for row in rows:
        rivals = [other for other in rows if other is not row and other.get("deployable") != "no"]
        by = [other["variant"] for other in rivals if dominates(other, row, criteria)]
        nearly = [
            other["variant"] for other in rivals if other["variant"] not in by and seems_better(other, row, criteria)
        ]
        reference = row.get("deployable") == "no"
        found.append(
            {
                "model": row["model"],
                "variant": row["variant"],
                "on_front": "reference" if reference else "no" if by else "yes",
                "dominated_by": ", ".join(by) or None,
                "beaten_but_for_noise_by": ", ".join(nearly) or None,
                "criteria": ", ".join(column for column, _ in criteria),
                **{column: row[column] for column, _ in CRITERIA},
            }
        )
    return found
