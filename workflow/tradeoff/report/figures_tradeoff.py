"""The trade-off in one figure: what each variant costs in perplexity for its speed, and for its memory."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.tradeoff.report import places, style

WIDEST = 2  # an interval that reaches beyond so many times its value runs out of the panel, which keeps its scale
PALE = 0.35  # of what is beaten
STEEP = 20  # percent of perplexity beyond which the axis is logarithmic outside ± 1 %
# places of a label beside its point, in points, the best first: right, left, above, below, and further out
LEADER = {"arrowstyle": "-", "linewidth": 0.6, "color": style.GREY, "shrinkA": 0, "shrinkB": 5}
CLOSE = 5  # the last of PLACES that is beside its point
NEAR = 60  # points, within which others crowd a point
PLACES = [
    place
    for far in (1, 2, 3, 4, 5)
    for place in ((9 * far, 0), (-9 * far, 0), (5, 10 * far), (5, -10 * far), (-5, 10 * far), (-5, -10 * far))
]
PLACES += [(across, up) for far in (2, 3, 4) for across in (20, -20, 40, -40) for up in (10 * far, -10 * far)]


def tradeoff(tables: Path) -> Figure:
    """Change of perplexity over the speedup (left) and over memory (right); each point bears its variant's name.

    Ringed: on the Pareto front over speed, memory and ΔNLL together, so in one panel alone a ringed point may look
    beaten. Faint: beaten by another variant, and the intervals say so. Crossed: a reference that nobody can serve.
    Colour tells the engine; a name stands at each point, so that no shape has to be learned.
    """
    summary, pareto = places.read(tables / "summary.csv"), places.read(tables / "pareto.csv")
    front = set(pareto[pareto["on_front"] == "yes"][["model", "variant"]].itertuples(index=False, name=None))
    shown = summary[(summary["status"] == "ok") & summary["decode_tokens_per_s"].notna()]
    shown = shown[shown["degradation_pct"].notna() & shown["speedup"].notna()]
    if shown.empty:
        return style.empty("No cell has both a speed and a change of perplexity.")
    names = style.models(shown)
    figure, axes = plt.subplots(
        len(names), 2, figsize=(10.4, 3.7 * len(names) + 0.5), squeeze=False, layout="constrained", sharey="row"
    )
    for (left, right), model in zip(axes, names, strict=True):
        part = shown[shown["model"] == model]
        for cell in part.itertuples():
            _point(left, cell, cell.speedup, (cell.speedup_low, cell.speedup_high), front)
            _point(right, cell, cell.memory_mb, None, front)
        for axis, column in ((left, "speedup"), (right, "memory_mb")):
            widest = part.get(f"{column}_high", part[column]).fillna(part[column]).clip(upper=WIDEST * part[column])
            axis.set_xlim(0, 1.18 * widest.max())
            axis.axhline(0, color=style.GREY, linewidth=0.8, linestyle=(0, (3, 3)))
            axis.margins(y=0.14)
        steep = _scale(left, part)
        left.set_title(f"{model}: speed")
        right.set_title(f"{model}: memory")
        left.set_ylabel("change of perplexity [%]: lower is better" + ("\nlogarithmic beyond ± 1 %" if steep else ""))
    axes[-1][0].set_xlabel("times as fast as the baseline while an answer is written: right is better")
    axes[-1][1].set_xlabel("weights and cache [MB]: left is better")
    style.legend(figure, _handles(shown), columns=4)
    figure.draw_without_rendering()  # places of labels are in pixels, known once the panels have theirs
    for (left, right), model in zip(axes, names, strict=True):
        part = shown[shown["model"] == model]
        _name(left, part, "speedup")
        _name(right, part, "memory_mb")
    return figure


def _handles(shown: pd.DataFrame) -> list[Line2D]:
    """The legend: a colour for each engine that is there, then what marks and paleness mean."""
    engines = {style.colour(name): style.engine(name) for name in style.variants(shown)}
    dots = [{"label": name, "marker": "o", "color": shade, "markersize": 6.5} for shade, name in engines.items()]
    marks = [
        {"label": "beaten by another variant", "marker": "o", "color": style.GREY, "alpha": PALE, "markersize": 6.5},
        {
            "label": "not shown to be beaten",
            "marker": "o",
            "markersize": 11,
            "markerfacecolor": "none",
            "color": "black",
        },
        {"label": "for comparison only: not to be served", "marker": "x", "markersize": 9, "color": "black"},
    ]
    return [Line2D([], [], linestyle="none", **kind) for kind in (*dots, *marks)]


def _scale(axis: Axes, part: pd.DataFrame) -> bool:
    """Where changes differ by orders of magnitude: linear within ± 1 %, logarithmic beyond, with plain numbers; and
    whether it is so.
    """
    if part["degradation_pct"].abs().max() < STEEP:
        return False
    axis.set_yscale("symlog", linthresh=1, linscale=0.6)
    low, high = part["degradation_low_pct"].min(), part["degradation_high_pct"].max()
    ticks = [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300, 1000]
    axis.set_yticks([tick for tick in ticks if 3 * min(low, -0.4) < tick < 3 * high])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    axis.yaxis.set_minor_locator(plt.NullLocator())
    return True


def _point(axis: Axes, cell, x: float, interval: tuple[float, float] | None, front: set) -> None:
    chosen = (cell.model, cell.variant) in front
    alpha = 1.0 if chosen else PALE
    y, shade = cell.degradation_pct, style.colour(cell.variant)
    sides = [[max(0.0, y - cell.degradation_low_pct)], [max(0.0, cell.degradation_high_pct - y)]]
    across = None if interval is None else [[max(0.0, x - interval[0])], [max(0.0, interval[1] - x)]]
    axis.errorbar(x, y, yerr=sides, xerr=across, fmt="none", ecolor=shade, elinewidth=1, capsize=2, alpha=alpha)
    axis.plot(x, y, linestyle="none", alpha=alpha, marker="o", color=shade, markersize=6.5)
    if chosen:
        axis.plot(x, y, marker="o", markersize=11, markerfacecolor="none", color="black", markeredgewidth=0.9)
    if cell.deployable == "no":
        axis.plot(x, y, marker="x", markersize=9, color="black", markeredgewidth=1.1)


def _name(axis: Axes, part: pd.DataFrame, column: str) -> None:
    """Each point's variant beside it, where it covers no other point, interval or name; a line leads to one that cannot
    stand close to its own point alone. The points with the most others around them choose first.
    """
    across, scale, inside = part[column], axis.figure.dpi / 72, axis.get_window_extent()
    points = axis.transData.transform(list(zip(across, part["degradation_pct"], strict=True)))
    low, high = part.get(f"{column}_low", across).fillna(across), part.get(f"{column}_high", across).fillna(across)
    ends = [axis.transData.transform([(x, 0) for x in side])[:, 0] for side in (low, high)]
    taken = [(x - 8 * scale, y - 7 * scale, x + 8 * scale, y + 7 * scale) for x, y in points]
    taken += [(start, y - 2, end, y + 2) for start, end, (_, y) in zip(*ends, points, strict=True)]
    upright = [
        axis.transData.transform([(0, y) for y in part[f"degradation_{end}_pct"]])[:, 1] for end in ("low", "high")
    ]
    taken += [(x - 2, start, x + 2, end) for start, end, (x, _) in zip(*upright, points, strict=True)]
    zero = axis.transData.transform((0, 0))[1]
    taken.append((inside.x0, zero - 0.5, inside.x1, zero + 0.5))
    names = list(part["variant"])
    near = [sum(math.dist(point, other) < NEAR * scale for other in points) for point in points]
    lines: list[tuple] = []
    for index in sorted(range(len(names)), key=lambda index: -near[index]):
        (left, bottom), width, height = points[index], 4.9 * len(names[index]) * scale, 9 * scale
        boxes = []
        for dx, dy in PLACES:
            start = left + dx * scale - (width if dx < 0 else 0)
            boxes.append((start, bottom + dy * scale - height / 2, start + width, bottom + dy * scale + height / 2))
        costs = [
            _covered(box, taken)
            + 1e4 * _outside(box, inside)
            + place
            + 40 * _strange(box, points, index)
            + 80 * sum(_cross(_line(points[index], box), line) for line in lines)
            for place, box in enumerate(boxes)
        ]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        lines.append(_line(points[index], boxes[best]))
        dx, dy = PLACES[best]
        led = best > CLOSE or _strange(boxes[best], points, index)
        axis.annotate(
            names[index], (across.iloc[index], part["degradation_pct"].iloc[index]), xytext=(dx, dy),
            textcoords="offset points", va="center", fontsize=7.5, ha="right" if dx < 0 else "left",
            color=style.colour(names[index]), arrowprops=LEADER if led else None,
        )  # fmt: skip


def _line(point: Sequence[float], box: Sequence[float]) -> tuple:
    """From a point to the middle of its name."""
    return tuple(point), ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def _cross(one: tuple, other: tuple) -> bool:
    """Whether two lines cross: the ends of each lie on both sides of the other."""

    def side(line: tuple, point: Sequence[float]) -> float:
        (x0, y0), (x1, y1) = line
        return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)

    return all(side(a, b[0]) * side(a, b[1]) < 0 for a, b in ((one, other), (other, one)))


def _strange(box: Sequence[float], points: Sequence[Sequence[float]], own: int) -> bool:
    """Whether a name there is closer to another point than to its own."""
    away = [math.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3])) for x, y in points]
    return any(other < away[own] for index, other in enumerate(away) if index != own)


def _covered(box: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    """Pixels² of the box (left, bottom, right, top) that others cover."""
    sides = [
        (min(box[2], right) - max(box[0], left), min(box[3], top) - max(box[1], bottom))
        for left, bottom, right, top in others
    ]
    return sum(max(0.0, wide) * max(0.0, high) for wide, high in sides)


def _outside(box: Sequence[float], inside) -> bool:
    return box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1
