"""The figure of growth: what a token costs as the sequence becomes longer, with and without a cache."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from workflow.tradeoff.report import places, style


def growth(tables: Path) -> Figure:
    """Inter-token latency over the length of the sequence: what it costs to have no KV cache."""
    table = places.read(tables / "growth.csv")
    if table.empty:
        return style.empty("No inter-token latency was measured.")
    names = style.models(table)
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(7.2 if columns == 1 else 10.5, 2.9 * lines + 0.8), squeeze=False, layout="constrained"
    )
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, names, strict=False):
        part = table[table["model"] == model]
        for variant in style.variants(part):
            cell = part[part["variant"] == variant]
            cached = (cell["cache"] == "yes").all()
            axis.fill_between(
                cell["length_tokens"], cell["itl_ms_p25"], cell["itl_ms_p75"], color=style.colour(variant), alpha=0.15,
                linewidth=0,
            )  # fmt: skip
            axis.plot(
                cell["length_tokens"], cell["itl_ms"], color=style.colour(variant), linestyle=style.dash(variant),
                linewidth=1.3 if cached else 2.4,
            )  # fmt: skip
        axis.set_title(model)
        style.plain_log(axis.yaxis)
    for row in axes:
        row[0].set_ylabel("ITL [ms], logarithmic")
    for axis in list(axes.flat)[max(0, len(names) - columns) : len(names)]:
        axis.set_xlabel("tokens in the sequence (thick: no KV cache)")
    style.legend(figure, style.variant_handles(style.variants(table), lines=True), columns=5)
    return figure
