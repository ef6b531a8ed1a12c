"""Launch overhead or quantization? The table of variants that were run twice: eagerly, and replayed as a CUDA graph.

A graph replays the same weights with one launch a token, so what it gains is what launching cost. The paragraph is
made from the table: no number and no verdict is typed.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from workflow.tradeoff import stats
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.summarize.cells import Cell
from workflow.tradeoff.variants import REFERENCE, VARIANTS

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
