"""The growth without a cache, and the roofline."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def roofline(tables: Path) -> Figure:
    """Decode speed over the bytes that a token must read; the line is what the measured bandwidth allows."""
    summary = places.read(tables / "summary.csv")
    shown = summary[summary["mbu_pct"].notna() & summary["decode_tokens_per_s"].notna()]
    if shown.empty:
        return style.empty("No memory bandwidth was measured in this run, so there is no roofline.")
    names = style.models(shown)
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(7.2 if columns == 1 else 10.5, 3.1 * lines + 0.8), squeeze=False, layout="constrained"
    )
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, names, strict=False):
        part = shown[shown["model"] == model]
        for cell in part.itertuples():
            axis.plot(
                cell.bytes_per_token / 1e6, cell.decode_tokens_per_s, linestyle="none", **style.marker(cell.variant)
            )
        bandwidth = (part["bytes_per_token"] * part["decode_tokens_per_s"] / part["mbu_pct"] * 100).median()
        reach = np.array([part["bytes_per_token"].min() / 1.4, part["bytes_per_token"].max() * 1.4])
        axis.plot(reach / 1e6, bandwidth / reach, color="black", linewidth=1.2)
        style.plain_log(axis.xaxis)
        style.plain_log(axis.yaxis)
        axis.set_title(f"{model}: bandwidth measured {bandwidth / 1e9:.1f} GB/s")
    for row in axes:
        row[0].set_ylabel("decode speed [tokens/s]")
    for axis in list(axes.flat)[max(0, len(names) - columns) : len(names)]:
        axis.set_xlabel("bytes read per token [MB]")
    limit = Line2D([], [], color="black", linewidth=1.2, label="limit by bandwidth")
    style.legend(figure, [*style.variant_handles(style.variants(shown)), limit], columns=5)
    return figure
