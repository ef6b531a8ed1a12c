"""The figures with two measured axes: the trade-off, the growth without a cache, and the roofline."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.tradeoff.report import style

WIDEST = 2  # an interval that reaches beyond so many times its value runs out of the panel, which keeps its scale


def tradeoff(tables: Path) -> Figure:
    """What each variant costs in perplexity for its speed (left) and for its memory (right).

    Ringed: on the Pareto front over speed, memory and ΔNLL together, so in one panel alone a ringed point may look
    beaten. Faint: dominated by another variant, and the intervals say so.
    """
    summary, pareto = pd.read_csv(tables / "summary.csv"), pd.read_csv(tables / "pareto.csv")
    front = set(pareto[pareto["on_front"] == "yes"][["model", "variant"]].itertuples(index=False, name=None))
    shown = summary[(summary["status"] == "ok") & summary["decode_tokens_per_s"].notna()]
    shown = shown[shown["degradation_pct"].notna()]
    if shown.empty:
        return style.empty("No cell has both a speed and a degradation.")
    names = style.models(shown)
    figure, axes = plt.subplots(
        len(names), 2, figsize=(9.6, 2.9 * len(names) + 0.8), squeeze=False, layout="constrained", sharey="row"
    )
    for (left, right), model in zip(axes, names, strict=True):
        part = shown[shown["model"] == model]
        for cell in part.itertuples():
            _point(
                left,
                cell,
                cell.decode_tokens_per_s,
                (cell.decode_tokens_per_s_low, cell.decode_tokens_per_s_high),
                front,
            )
            _point(right, cell, cell.memory_mb, None, front)
        for axis in (left, right):
            column = "decode_tokens_per_s_high" if axis is left else "memory_mb"
            value = part["decode_tokens_per_s" if axis is left else "memory_mb"]
            axis.set_xlim(0, 1.1 * part[column].fillna(value).clip(upper=WIDEST * value).max())
            axis.axhline(0, color=style.GREY, linewidth=0.8, linestyle=(0, (3, 3)))
            axis.margins(y=0.12)
        left.set_title(f"{model}: speed")
        right.set_title(f"{model}: memory")
        left.set_ylabel("degradation of perplexity [%]")
    axes[-1][0].set_xlabel("decode speed [tokens/s]: right is better")
    axes[-1][1].set_xlabel("weights and cache [MB]: left is better")
    ring = Line2D(
        [],
        [],
        marker="o",
        linestyle="none",
        markersize=11,
        markerfacecolor="none",
        color="black",
        label="on the Pareto front",
    )
    style.legend(figure, [*style.variant_handles(style.variants(shown)), ring], columns=5)
    return figure


def _point(axis, cell, x: float, interval: tuple[float, float] | None, front: set) -> None:
    chosen = (cell.model, cell.variant) in front
    alpha = 1.0 if chosen else 0.4
    y, shade = cell.degradation_pct, style.colour(cell.variant)
    sides = [[max(0.0, y - cell.degradation_low_pct)], [max(0.0, cell.degradation_high_pct - y)]]
    across = None if interval is None else [[max(0.0, x - interval[0])], [max(0.0, interval[1] - x)]]
    axis.errorbar(x, y, yerr=sides, xerr=across, fmt="none", ecolor=shade, elinewidth=1, capsize=2, alpha=alpha)
    axis.plot(x, y, linestyle="none", alpha=alpha, **style.marker(cell.variant))
    if chosen:
        axis.plot(x, y, marker="o", markersize=11, markerfacecolor="none", color="black", markeredgewidth=0.9)


def growth(tables: Path) -> Figure:
    """Inter-token latency over the length of the sequence: what it costs to have no KV cache."""
    table = pd.read_csv(tables / "growth.csv")
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
    summary = pd.read_csv(tables / "summary.csv")
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
