"""A cell and its figures in words, for the sentences of an answer."""

import math
from collections.abc import Mapping

from workflow.tradeoff import stats
from workflow.tradeoff.words import brief, number


def cite(row: Mapping) -> str:
    return f"{row['model']}/{row['variant']}"


def figures(row: Mapping) -> str:
    """A cell's three figures in words."""
    parts = [row.get("rate") or f"{number(row['decode_tokens_per_s'])} tokens/s"]
    if row["variant"] != row["baseline"]:
        low, high = row["speedup_low"], row["speedup_high"]
        interval = f" [{number(low)}, {number(high)}]" if not math.isnan(low) else ""
        parts[0] += f" ({row['speedup']:.2f}×{interval} the baseline)"
    parts.append(f"{number(row['memory_mb'])} MB of weights and cache")
    if math.isnan(row["degradation_pct"]):
        parts.append("accuracy not measured")
    elif row["variant"] != row["baseline"]:
        low, high = row["degradation_low_pct"], row["degradation_high_pct"]
        interval = f" [{low:+.2f}, {high:+.2f}]" if not math.isnan(low) else ""
        parts.append(f"perplexity {row['degradation_pct']:+.2f}%{interval}")
    return ", ".join(parts)


def within(value: float | None, low: float | None, high: float | None, form: str = "") -> str:
    """A figure with its 95% interval, ``7.24 [6.6, 7.94]``; without one where it is not known.

    form: of each number, where it is not ``brief``.
    """
    told = form.format if form else brief
    if value is None or low is None or math.isnan(low) or (low == value == high):
        return told(value)
    return f"{told(value)} [{told(low)}, {told(high)}]"


def accuracy(row: Mapping) -> str:
    """The change of a cell's perplexity, as an addition to another figure; empty for the baseline, or if not scored."""
    if row["variant"] == row["baseline"] or math.isnan(row["degradation_pct"]):
        return ""
    return f", perplexity {row['degradation_pct']:+.3g}%"


def short(row: Mapping, objective: str) -> str:
    """The figure of a cell that an objective is about: its speed, memory or perplexity; speed and memory of balanced.

    ``tie``, ``undecided``: the interval does not tell the speed apart from the baseline's.
    """
    speed = "the baseline" if row["variant"] == row["baseline"] else f"{row['speedup']:.3g}×"
    if row["speed_verdict"] in stats.NO_DIFFERENCE:
        speed += f" {row['speed_verdict']}"
    if objective in ("speed", "throughput"):
        return speed
    if objective == "memory":
        return f"{number(row['memory_mb'])} MB"
    if objective == "quality" and not math.isnan(row["degradation_pct"]):
        return accuracy(row).removeprefix(", ") or "the baseline"
    return f"{speed}, {number(row['memory_mb'])} MB"
