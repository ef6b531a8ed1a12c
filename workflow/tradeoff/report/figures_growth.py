"""The figure of growth: what a token costs as the sequence becomes longer, with and without a cache."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from workflow.tradeoff.report import places, style

LINE, GAP = 0.15, 9.5  # of names at the ends of lines: inches of a panel's height each, points from one to the next


def growth(tables: Path) -> Figure:
    """Left: inter-token latency over the length of the timed answers. Right: a step after a short and a long prompt."""
    table = places.read(tables / "growth.csv")
    if table.empty:
        return style.empty("No inter-token latency was measured.")
    names, dashes = style.models(table), style.dashes(style.variants(table))
    figure, axes = plt.subplots(
        len(names), 2, figsize=(10.5, max(2.9, LINE * len(dashes) + 0.9) * len(names) + 0.8), squeeze=False,
        sharey="row", width_ratios=(3, 2), layout="constrained",
    )  # fmt: skip
    for (left, right), model in zip(axes, names, strict=True):
        part = table[table["model"] == model]
        answers, steps = (part[part["source"] == source] for source in ("answers", "proof"))
        for variant in style.variants(answers):
            cell = answers[answers["variant"] == variant]
            left.fill_between(
                cell["length_tokens"], cell["itl_ms_p25"], cell["itl_ms_p75"], color=style.colour(variant), alpha=0.15,
                linewidth=0,
            )  # fmt: skip
            left.plot(cell["length_tokens"], cell["itl_ms"], **_line(variant, cell, dashes))
        for variant in style.variants(steps):
            cell = steps[steps["variant"] == variant]
            right.plot(cell["length_tokens"], cell["itl_ms"], **(_line(variant, cell, dashes) | style.marker(variant)))
        lengths = answers["length_tokens"]
        left.set_title(f"{model}: {lengths.min()} to {lengths.max()} tokens, the timed answers")
        left.set_ylabel("ITL [ms], logarithmic")
        style.plain_log(left.yaxis)
        _prompts(right, steps)
    axes[-1][0].set_xlabel("tokens in the sequence (thick: no KV cache)")
    axes[-1][1].set_xlabel("tokens before the step, logarithmic")
    style.legend(figure, style.variant_handles(list(dashes), lines=True), columns=5, wide=4.5)
    figure.canvas.draw()  # which gives each panel its height
    for (_, right), model in zip(axes, names, strict=True):
        _name(right, table[(table["model"] == model) & (table["source"] == "proof")])
    return figure


def _line(variant: str, cell: pd.DataFrame, dashes: dict) -> dict:
    """Keywords of plot for a cell's line."""
    cached = (cell["cache"] == "yes").all()
    return {"color": style.colour(variant), "linestyle": dashes[variant], "linewidth": 1.3 if cached else 2.4}


def _prompts(axis: Axes, steps: pd.DataFrame) -> None:
    """Title and x axis of the panel of steps after a prompt."""
    axis.tick_params(axis="y", labelleft=False)
    if steps.empty:
        axis.set_title("no step after a longer prompt was measured")
        return
    lengths = sorted(set(steps["length_tokens"]))
    axis.set_title(f"a step after {' and after '.join(map(str, lengths))} tokens")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(lengths))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _name(axis: Axes, steps: pd.DataFrame) -> None:
    """Each line's variant at its right end, in the order of the lines, none over another."""
    ends = steps.sort_values("length_tokens").groupby("variant").last().sort_values("itl_ms")
    scale = axis.figure.dpi / 72
    points = [axis.transData.transform((1, y))[1] / scale for y in ends["itl_ms"]]
    found = spread(points, GAP, axis.bbox.y0 / scale, axis.bbox.y1 / scale)
    for (variant, end), point, place in zip(ends.iterrows(), points, found, strict=True):
        axis.annotate(
            variant, (end["length_tokens"], end["itl_ms"]), xytext=(16, place - point), textcoords="offset points",
            va="center", fontsize=7.5, color=style.colour(variant), annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": style.colour(variant), "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 0,
                "shrinkB": 4,
            },
        )  # fmt: skip


def spread(points: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least ``gap`` apart for ``points`` in rising order, from ``low`` to ``high`` where they all fit: those
    that crowd share the space around them.
    """
    groups: list[list[float]] = []  # sum and count of the points that stand in one block
    for place, point in enumerate(points):
        after = len(points) - 1 - place
        groups.append([max(min(point, high - gap * after), low + gap * place), 1])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    return [_bottom(group, gap) + gap * step for group in groups for step in range(int(group[1]))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return group[0] / group[1] - gap * (group[1] - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return group[0] / group[1] + gap * (group[1] - 1) / 2
