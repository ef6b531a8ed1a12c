"""Print the summary of a study on the terminal, and why a cell in it has no figures.

python -m workflow.tradeoff.report.show --tables results/demo/tables
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from workflow.tradeoff import errors, tables
from workflow.tradeoff.report import places

SMALL, EQUAL = 1, 0.01  # percent of perplexity: what few will notice, and what nobody can
# column of tables/summary.csv: head on the terminal, digits after the point
SHOWN = {
    "model": ("model", None),
    "variant": ("variant", None),
    "decode_tokens_per_s": ("tokens/s", 1),
    "speedup": ("speedup", 2),
    "ttft_ms": ("TTFT ms", 1),
    "weight_mb": ("weights MB", 0),
    "whole_peak_mb": ("peak MB", 0),
    "perplexity": ("perplexity", 2),
    "degradation_pct": ("ppl change %", 1),
    "same_top_pct": ("same top %", 1),
    "quality_score": ("text 1-5", 2),
    "state": ("status", None),
}
BESIDE = ("status", "reason", "noisy", "half_width_pct", "load_peak_mb", "peak_mb")
MADE = ("whole_peak_mb", "state")  # by ``told``
NEEDS = [*(name for name in SHOWN if name not in MADE), *BESIDE]


def told(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with ``whole_peak_mb``, the higher of the peaks while loading and while decoding; ``state``, the
    status in words, with how sharp a speed is that did not become as sharp as was asked for; and ``change``, what
    became of accuracy, and how much at most.
    """
    rows = summary.to_dict("records")
    return summary.assign(
        whole_peak_mb=summary[["load_peak_mb", "peak_mb"]].max(axis=1),
        state=[_state(row) for row in rows],
        change=[_change(row) for row in rows],
    )


def _state(row: Mapping) -> str:
    words = row["status"].replace("_", " ")
    if str(row["noisy"]).lower() != "true":
        return words
    half = row["half_width_pct"]
    return f"{words}, noisy" if pd.isna(half) else f"{words}, speed ± {half:.0f}%"


def _change(row: Mapping) -> str | None:
    """The verdict on accuracy, and the bound that the interval gives where that is below SMALL."""
    verdict, low, high = (row[name] for name in ("quality_verdict", "degradation_low_pct", "degradation_high_pct"))
    if not isinstance(verdict, str) or verdict == "baseline" or pd.isna(high):
        return verdict if isinstance(verdict, str) else None
    most = max(abs(low), abs(high))
    if most < EQUAL:
        return "equal"
    return f"{verdict} (less than {SMALL}%)" if most < SMALL else verdict


def table(summary: pd.DataFrame) -> str:
    """The summary's main columns as text; an absent figure is empty, and a cell's status says why."""
    summary = told(summary)
    columns = {head: _cells(summary[name], digits) for name, (head, digits) in SHOWN.items()}
    align = ["left" if digits is None else "right" for _, digits in SHOWN.values()]
    return tabulate(columns, headers="keys", colalign=align, disable_numparse=True)


def without_figures(summary: pd.DataFrame) -> list[str]:
    """A line for each reason why cells have no claim, which says what puts it right where something does."""
    lines: dict[str, list[str]] = {}
    for row in summary[summary["status"] != "ok"].to_dict("records"):
        why = "" if pd.isna(row["reason"]) else f": {row['reason']}"
        lines.setdefault(f"{row['status'].replace('_', ' ')}{why}", []).append(f"{row['model']}/{row['variant']}")
    return [f"{', '.join(cells)}: {words}" for words, cells in lines.items()]


def _cells(column: pd.Series, digits: int | None) -> list[str]:
    if digits is None:
        return [str(value) for value in column]
    return ["" if pd.isna(value) else f"{value:,.{digits}f}" for value in column]


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER", help="results/{study}/tables")
    path = parser.parse_args(argv).tables / "summary.csv"
    summary = places.read(path, NEEDS)
    tables.check_numbers(
        summary, [name for name, (_, digits) in SHOWN.items() if digits is not None and name in NEEDS], path
    )
    print(table(summary))
    for line in without_figures(summary):
        print(f"\n{line}")


if __name__ == "__main__":
    errors.run(main)
