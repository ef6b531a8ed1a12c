"""Launch overhead or quantization? The table of variants that were run twice: eagerly, and replayed as a CUDA graph.

A graph replays the same weights with one launch a token, so what it gains is what launching cost. The paragraph is
made from the table: no number and no verdict is typed.
"""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from workflow.tradeoff import stats
from workflow.tradeoff.cells import Cell
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.variants import VARIANTS

REFERENCE = "torch-fp16"  # the study's baseline
PAIRS = {name: f"{name}-graph" for name in VARIANTS if f"{name}-graph" in VARIANTS}  # eager: graph
PROFILE = {  # column: (key of the profile, factor)
    "kernels_per_token": ("kernels_per_token", 1),
    "launches_per_token": ("launches_per_token", 1),
    "busy_us_per_token": ("busy_s_per_token", 1e6),
    "waiting_us_per_token": ("waiting_s_per_token", 1e6),
}
SPEEDS = tuple(f"{form}_tokens_per_s{end}" for form in ("eager", "graph") for end in ("", "_low", "_high"))
RATIOS = tuple(
    f"{name}{end}"
    for name in ("graph_over_eager", f"eager_over_{REFERENCE}", f"graph_over_{REFERENCE}")
    for end in ("", "_low", "_high")
)
COLUMNS = (
    "model", "variant", "graph_variant", *SPEEDS, *RATIOS,
    *(f"{form}_{column}" for column in PROFILE for form in ("eager", "graph")), "status", "reason",
)  # fmt: skip


def table(cells: Iterable[Cell], lines: Mapping[tuple[str, str], Mapping]) -> pd.DataFrame:
    """One row per model and variant that has both forms in this study; no figure of a form that failed.

    lines: the summary's rows by cell; what they do not claim is not claimed here either.
    """
    known = {cell.key: cell for cell in cells}
    rows = []
    for model, variant in known:
        graph = PAIRS.get(variant)
        if (model, graph) not in known:
            continue
        forms = {"eager": lines[model, variant], "graph": lines[model, graph]}
        row: dict = dict.fromkeys(COLUMNS)
        row |= {"model": model, "variant": variant, "graph_variant": graph}
        for form, line in forms.items():
            row |= {f"{form}_tokens_per_s{end}": line[f"decode_tokens_per_s{end}"] for end in ("", "_low", "_high")}
            profile = known[line["model"], line["variant"]].speed.get("kernels") if line["status"] == "ok" else None
            for column, (key, factor) in PROFILE.items():
                row[f"{form}_{column}"] = profile[key] * factor if profile else None
        row |= _ratio("graph_over_eager", forms["graph"], forms["eager"])
        for form, line in forms.items():
            row |= _ratio(f"{form}_over_{REFERENCE}", line, lines.get((model, REFERENCE)))
        failed = [f"{line['variant']}: {line['status']}" for line in forms.values() if line["status"] != "ok"]
        row["status"] = "; ".join(failed) or "ok"
        reasons = (line["reason"] for line in forms.values() if line["reason"])
        row["reason"] = "; ".join(dict.fromkeys(reasons)) or None
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _ratio(name: str, above: Mapping, below: Mapping | None) -> dict:
    """Ratio of two cells' speeds: paired where one of them is the baseline of the other, else of their speedups.

    Both ran in turns with the same baseline, so the machine's drift has left each speedup.
    """
    if below is None or above["speedup"] is None or below["speedup"] is None:
        return {}
    if above["variant"] == below["variant"]:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), 1.0)
    if below["variant"] == below["baseline"]:
        return {f"{name}{end}": above[f"speedup{end}"] for end in ("", "_low", "_high")}
    ratio = stats.independent_ratio(_speedup(above), _speedup(below))
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def _speedup(line: Mapping) -> Interval:
    replicates = line["replicates"] or 0
    return Interval(line["speedup"], line["speedup_low"], line["speedup_high"], replicates, "paired with the baseline")


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
    words = {"slower": "slower than", "faster": "faster than", "tie": "not told apart from"}[verdict]
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
