"""Launch overhead or quantization? What the table of eager and graph variants says, in sentences."""

import math
from collections.abc import Mapping

import pandas as pd

from workflow.tradeoff import stats
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.variants import REFERENCE


def paragraphs(found: pd.DataFrame) -> list[str]:
    """What the pairs of each model say, one paragraph a model; empty without a pair that has both speeds."""
    usable = found[found["graph_over_eager"].notna()] if len(found) else found
    return [_paragraph(model, part) for model, part in usable.groupby("model", sort=False)]


def _paragraph(model: str, rows: pd.DataFrame) -> str:
    by_variant = {row["variant"]: row for row in rows.to_dict("records")}
    reference = by_variant.get(REFERENCE)
    text = [f"**{model}.**"]
    if reference:
        waits = _waits(reference)
        text.append(
            f"{_cell(reference)} runs at {_times(reference, 'graph_over_eager')} its eager speed as a graph"
            + (f"; eager, its device waits {waits} of the time." if waits else ".")
        )
    for variant, row in by_variant.items():
        if variant != REFERENCE:
            text += _quantized(row, reference)
    return " ".join(text)


def _quantized(row: Mapping, reference: Mapping | None) -> list[str]:
    """Sentences on one quantized variant: eager, why it is slow, and as a graph."""
    eager, graph = f"eager_over_{REFERENCE}", f"graph_over_{REFERENCE}"
    gained = f"As a graph the same weights run at {_times(row, 'graph_over_eager')} their eager speed"
    if math.isnan(row[eager]):
        return [f"{_cell(row)}: no ratio to {REFERENCE}. {gained}."]
    verdict = stats.speed_verdict(row[f"{eager}_low"], row[f"{eager}_high"])
    words = {"slower": "slower than", "faster": "faster than", "tie": "as fast as"}.get(verdict, "not told apart from")
    waits = _waits(row)
    cause = _cause(row, reference) if reference and verdict == "slower" else None
    text = f"{_cell(row)}, eager, is {words} {REFERENCE} ({_times(row, eager)})"
    text += f": {cause}." if cause else f" and waits {waits} of the time." if waits else "."
    gained += f", {_times(row, graph)} eager {REFERENCE}"
    if reference:
        left = stats.independent_ratio(_interval(row, graph), _interval(reference, graph))
        gained += f", and {_value(left.value, left.low, left.high)} the graph of {REFERENCE}"
    return [text, f"{gained}."]


def _cause(row: Mapping, reference: Mapping) -> str | None:
    """Of the time that an eager token takes longer than the reference's: how much is waiting, how much is work."""
    work, waiting = (
        row[f"eager_{name}_us_per_token"] - reference[f"eager_{name}_us_per_token"] for name in ("busy", "waiting")
    )
    longer = work + waiting
    if math.isnan(longer) or longer <= 0:
        return None
    share = min(1.0, max(0.0, waiting / longer))
    cause = "launch overhead" if share >= 0.5 else "the work of its kernels"
    counts = [f"{entry['eager_kernels_per_token']:,.0f}" for entry in (row, reference)]
    return (
        f"a token takes {counts[0]} kernels instead of {counts[1]} and {longer / 1e3:.3g} ms more, of which the device "
        f"waits {share:.0%} and works {1 - share:.0%}, so it is mostly {cause} that slows it down"
    )


def _waits(row: Mapping) -> str | None:
    """Share of an eager step in which the device waits."""
    busy, waiting = row["eager_busy_us_per_token"], row["eager_waiting_us_per_token"]
    return None if math.isnan(busy + waiting) else f"{waiting / (busy + waiting):.0%}"


def _cell(row: Mapping) -> str:
    return f"{row['model']}/{row['variant']}"


def _interval(row: Mapping, name: str) -> Interval:
    return Interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 0, "of the table")


def _times(row: Mapping, name: str) -> str:
    return _value(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _value(value: float, low: float, high: float) -> str:
    return f"{value:.3g}×" + ("" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]")
