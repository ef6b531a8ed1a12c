"""All tables of a study, from its cells. Every statistic is computed here and not where it was measured.

A cell that does not pass its gates keeps its row, with status and reason, and claims no speed.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff.columns import COLUMNS
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file, write_json
from workflow.tradeoff.summarize import crossings, details, gates, launch, notes, rows, tables, under_load
from workflow.tradeoff.summarize.cells import Cell

DIGITS = "%.10g"
MEMORY = "disk_mb weight_mb cache_mb memory_mb memory_reduction_pct before_load_mb load_peak_mb peak_mb memory_kind"
LATENCY = (
    "ttft_ms ttft_ms_low ttft_ms_high ttft_ratio ttft_ratio_low ttft_ratio_high "
    "itl_p50_ms itl_p50_ms_low itl_p50_ms_high itl_p90_ms itl_p90_ms_low "
    "itl_p90_ms_high itl_p99_ms itl_p99_ms_low itl_p99_ms_high half_width_pct "
    "replicates turns retaken pairing harness_pct drift_pct noisy"
)
TABLES = (  # the files that this stage writes, beside notes.json
    "summary", "benchmark", "onnx", "perplexity", "degradation", "accuracy_drop", "speed_by_precision",
    "memory_by_precision", "efficiency_matrix", "memory", "latency", "itl", "growth", "launch", "divergence", "proof",
    "conventions", "generated", "resources", "loads", "crossings",
)  # fmt: skip


def summarize(
    cells: Sequence[Cell],
    benchmarks: Sequence[Path | str] = (),
    convention: str | None = None,
    kl_most: float = gates.KL_MOST,
    delta_most: float = gates.DELTA_NLL_MOST,
) -> tuple[dict[str, pd.DataFrame], dict]:
    """The tables by name, and their notes. convention: of the summary's accuracy; None takes ``main_convention``."""
    convention = main_convention(cells, convention)
    baselines = {cell.model: cell for cell in cells if cell.variant == cell.baseline}
    limits = {"kl_most": kl_most, "delta_most": delta_most}
    lines = {cell.key: rows.row(cell, baselines.get(cell.model), convention, limits) for cell in cells}
    summary = pd.DataFrame(list(lines.values()), columns=list(COLUMNS))
    summary = summary.apply(_numbers)
    conventions = details.conventions(cells, lines, baselines)
    claimed = {key for key, line in lines.items() if line["decode_tokens_per_s"] is not None}
    head = ["model", "variant", "status", "reason"]
    loads = under_load.table(cells, lines, limits).apply(_numbers)
    parameters = {cell.model: cell.facts.get("parameters") for cell in cells}
    found = {
        "summary": summary,
        "benchmark": tables.benchmark(summary),
        "onnx": tables.onnx(summary),
        "perplexity": tables.perplexity(conventions),
        "degradation": tables.degradation(conventions),
        "accuracy_drop": tables.accuracy_drop(summary, conventions),
        "speed_by_precision": tables.speed_by_precision(summary),
        "memory_by_precision": tables.memory_by_precision(summary),
        "efficiency_matrix": tables.efficiency_matrix(summary),
        "memory": summary[[*head[:2], *MEMORY.split(), *head[2:]]],
        "latency": summary[[*head[:2], *LATENCY.split(), *head[2:]]],
        "itl": details.itl(cells, claimed),
        "growth": details.growth(cells, claimed),
        "launch": launch.table(cells, lines),
        "divergence": details.divergence(cells),
        "proof": details.proof(cells),
        "conventions": conventions,
        "generated": details.generated(cells),
        "resources": details.resources(benchmarks, parameters),
        "loads": loads,
        "crossings": crossings.table(loads),
    }
    return found, notes.build(cells, summary)


def main_convention(cells: Sequence[Cell], asked: str | None) -> str | None:
    """The convention of the summary's accuracy columns: as asked, or where the divergence was taken, or the first.

    Raises UserError when the one asked for was not evaluated.
    """
    known = list(dict.fromkeys(name for cell in cells for name in cell.quality.get("conventions") or {}))
    if asked is not None and known and asked not in known:
        raise UserError(f"--convention {asked} was not evaluated: one of {', '.join(known)}")
    diverging = [name for cell in cells for name in cell.quality.get("divergence") or {}]
    return asked or next(iter([*diverging, *known]), None)


def _numbers(column: pd.Series) -> pd.Series:
    """A column that holds only numbers and None, as numbers."""
    known = column.dropna()
    numeric = not known.empty and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    return pd.to_numeric(column) if numeric or known.empty else column


def write(folder: Path, found: dict[str, pd.DataFrame], notes_found: dict) -> None:
    """Write every table as CSV, and notes.json; numbers with ten digits, so that equal runs give equal files."""
    for name, table in found.items():
        with atomic_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format=DIGITS)
    write_json(folder / "notes.json", notes_found)
