"""The figure of launch overhead: each variant eager and as a CUDA graph, and what the device does in one step."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workflow.tradeoff.report import places, style
from workflow.tradeoff.variants import REFERENCE

FORMS = ("eager", "graph")
OFFSET = 0.2  # of the two bars from the middle of a variant's row
HEIGHT = 0.34
WAITING = "#D9D9D9"


def launch(tables: Path) -> Figure:
    """Left: decode speed, eager (hollow) and as a graph. Right: a step's time on the device and waiting, kernels."""
    table = places.read(tables / "launch.csv")
    if table.empty:
        return style.empty("No variant was run both eagerly and as a CUDA graph in this study.")
    names, order = style.models(table), style.variants(table)
    figure, axes = plt.subplots(
        len(names), 2, figsize=(10.5, len(names) * (0.55 * len(order) + 0.9) + 0.7), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for (left, right), model in zip(axes, names, strict=True):
        part = table[table["model"] == model].set_index("variant")
        left.set_title(f"{model}: decode speed")
        right.set_title(f"{model}: one decode step")
        for place, variant in enumerate(order):
            row = part.loc[variant] if variant in part.index else None
            _speeds(left, place, variant, row)
            _step(right, place, variant, row)
        if REFERENCE in part.index:
            eager = part.loc[REFERENCE, "eager_tokens_per_s"]
            left.axvline(eager, color=style.GREY, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0.5)
        for axis, room in ((left, 1.3), (right, 1.5)):
            axis.set_yticks(range(len(order)), order)
            axis.set_ylim(len(order) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="y", visible=False)
            axis.set_xlim(0, max(axis.get_xlim()[1], axis.dataLim.x1) * room)  # room for the words
    axes[-1][0].set_xlabel(f"decode speed [tokens/s], 95% interval; × and dashed: of eager {REFERENCE}")
    axes[-1][1].set_xlabel("time per token [ms], and kernels")
    style.legend(
        figure,
        [
            Patch(facecolor="white", edgecolor=style.GREY, label="eager: upper bar"),
            Patch(facecolor=style.GREY, alpha=0.75, label="CUDA graph: lower bar"),
            Patch(facecolor=style.GREY, label="the device works (in the variant's colour)"),
            Patch(facecolor=WAITING, label="the device waits"),
        ],
    )
    return figure


def _speeds(axis: Axes, place: int, variant: str, row: pd.Series | None) -> None:
    for form, side in zip(FORMS, (-OFFSET, OFFSET), strict=True):
        value = None if row is None else row[f"{form}_tokens_per_s"]
        if value is None or pd.isna(value):
            style.gap(axis, place + side, "not in this study" if row is None else f"{form}: no figure")
            continue
        shade, low, high = style.colour(variant), row[f"{form}_tokens_per_s_low"], row[f"{form}_tokens_per_s_high"]
        face = "white" if form == "eager" else shade
        axis.barh(place + side, value, height=HEIGHT, color=face, edgecolor=shade, alpha=0.75)
        style.whiskers(axis, value, place + side, low, high, "black")
        ratio = row[f"{form}_over_{REFERENCE}"]
        words = "" if pd.isna(ratio) else f", {ratio:.3g}×"
        reach = value if pd.isna(high) else min(high, 2 * value)
        style.note(axis, reach, place + side, f"{value:,.0f}{words}")


def _step(axis: Axes, place: int, variant: str, row: pd.Series | None) -> None:
    for form, side in zip(FORMS, (-OFFSET, OFFSET), strict=True):
        busy = None if row is None else row[f"{form}_busy_us_per_token"]
        if busy is None or pd.isna(busy):
            style.gap(axis, place + side, "not in this study" if row is None else f"{form}: no profile")
            continue
        busy, waiting = busy / 1e3, row[f"{form}_waiting_us_per_token"] / 1e3
        axis.barh(place + side, busy, height=HEIGHT, color=style.colour(variant))
        axis.barh(place + side, waiting, left=busy, height=HEIGHT, color=WAITING)
        kernels, launches = row[f"{form}_kernels_per_token"], row[f"{form}_launches_per_token"]
        words = f"{kernels:,.0f} kernels, {launches:,.0f} launch{'' if launches == 1 else 'es'}"
        style.note(axis, busy + waiting, place + side, words)
