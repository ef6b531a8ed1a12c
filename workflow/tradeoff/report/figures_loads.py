"""The figure of loads: speed, speedup, wait and memory, over the batch and over the length of the prompt."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from workflow.tradeoff.report import places, style

AXES = {"sequences": "sequences at once", "prompt_tokens": "tokens of the prompt"}
FIXED = {"sequences": "prompt_tokens", "prompt_tokens": "sequences"}
WIDE = 5  # a range of this ratio and more has a logarithmic axis
PANELS = {  # column: label, whether it has an interval
    "tokens_per_s": ("tokens/s of all", True),
    "speedup": ("speedup ×", True),
    "ttft_ms": ("first token [ms]", True),
    "memory_mb": ("weights, keys\nand values [MB]", False),
}


def loads(tables: Path) -> Figure:
    """A column for each axis, a row for each figure of each model; a line joins loads that differ in one thing."""
    table = places.read(tables / "loads.csv")
    if table["load"].nunique() < 2:
        return style.empty("One load was measured: measure.loads of the config names further ones.")
    names = style.models(table)
    figure, axes = plt.subplots(
        len(PANELS) * len(names), 2, figsize=(9.5, 8.2 * len(names) + 0.6), squeeze=False, layout="constrained",
    )  # fmt: skip
    for place, model in enumerate(names):
        rows = axes[place * len(PANELS) : (place + 1) * len(PANELS)]
        for line, (column, (label, interval)) in zip(rows, PANELS.items(), strict=True):
            line[0].set_ylabel(label)
            for axis, over in zip(line, AXES, strict=True):
                _panel(axis, table[table["model"] == model], over, column, interval)
        for axis, over in zip(rows[0], AXES, strict=True):
            axis.set_title(f"{model}: over the {'batch' if over == 'sequences' else 'prompt'}")
    for axis, words in zip(axes[-1], AXES.values(), strict=True):
        axis.set_xlabel(words)
    style.legend(figure, style.variant_handles(style.variants(table)))
    return figure


def _panel(axis: Axes, table: pd.DataFrame, over: str, column: str, interval: bool) -> None:
    """Lines over loads that differ in ``over`` alone; a load apart from them, of several sequences, as a lone mark."""
    # among batches, what has one sequence belongs to the other column
    shown = [
        (fixed, part)
        for (fixed, _), part in table.groupby([FIXED[over], "new_tokens"], sort=False)
        if part[over].nunique() > 1 or (over == "sequences" and part["sequences"].max() > 1)
    ]
    dashes = style.dashes(style.variants(table))
    places = {place for _, part in shown for place in part[over]}
    for fixed, part in shown:
        for variant in style.variants(part):
            own = part[(part["variant"] == variant) & part[column].notna()].sort_values(over)
            if own.empty:
                continue
            shade = style.colour(variant)
            axis.plot(own[over], own[column], linestyle=dashes[variant], linewidth=1.1, **style.marker(variant))
            if interval:
                low, high = (own[f"{column}_{end}"].fillna(own[column]) for end in ("low", "high"))
                spread = [(own[column] - low).clip(lower=0), (high - own[column]).clip(lower=0)]
                axis.errorbar(own[over], own[column], yerr=spread, fmt="none", ecolor=shade, elinewidth=1, capsize=2)
        known = part[(part[over] == part[over].max()) & part[column].notna()]
        if len(shown) > 1 and not known.empty:
            unit = "prompt tokens" if over == "sequences" else "sequence" if fixed == 1 else "sequences"
            style.note(axis, known[over].iloc[0], known[column].max(), f"{fixed} {unit}")
    if not places:
        axis.text(0.5, 0.5, "one load only", transform=axis.transAxes, ha="center", va="center", color=style.GREY)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    low, high = axis.dataLim.intervaly
    if 0 < low < high / WIDE:  # a narrower one may hold no 1, 2 or 5 to label
        style.plain_log(axis.yaxis)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sorted(places)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.margins(x=0.2)
    if column == "speedup":
        axis.axhline(1, color=style.GREY, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0.5)
