"""How every figure looks: one palette, one order of variants, small multiples by model, the same bytes each time.

Colour tells the engine, the marker tells the precision; a variant's special twin is drawn hollow. The colours are
those of Okabe and Ito (2008), which stay apart for colour-blind readers and, by lightness, in grey print.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is asked for, wherever this runs

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workflow.tradeoff.files import atomic_file
from workflow.tradeoff.variants import VARIANTS, schema

COLOURS = {
    "torch": "#0072B2",
    "bnb": "#D55E00",
    "onnx": "#009E73",
    "onnx-kv": "#CC79A7",
    "graph": "#E69F00",
    "llamacpp": "#56B4E9",
    "vllm": "#000000",
}
MARKERS = {
    "fp32": "o", "fp16": "s", "bf16": "D", "int8": "^", "fp8": "d", "nf4": "v", "fp4": "<", "int4": "P", "f16": "s",
    "q8_0": "^", "q6_k": "h", "q5_k_m": "p", "q4_k_m": "P", "q4_0": "X",
}  # fmt: skip
OTHER = "*"  # a precision of a config's own, or of a file that someone published
DASHES = {
    "fp32": "-",
    "fp16": (0, (6, 2)),
    "bf16": (0, (6, 2)),
    "int8": (0, (3, 2)),
    "fp8": (0, (3, 2)),
    "int4": (0, (1, 1.5)),
}
MORE_DASHES = (
    (0, (4, 1, 1, 1)), (0, (8, 2, 1, 2, 1, 2)), (0, (1, 3.5)), (0, (10, 3)), (0, (5, 1, 1, 1, 1, 1, 1, 1)), (0, (2, 1)),
)  # fmt: skip
GREY = "#595959"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # keeps lines out of words
FONT = "DejaVu Sans"  # comes with matplotlib, so that sizes are the same everywhere
FALLBACKS = "Verdana, Arial, sans-serif"  # for a reader who lacks it
PARAMETERS = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "tradeoff",
    "svg.fonttype": "none",
    "savefig.dpi": 110,
}
plt.rcParams.update(PARAMETERS)


def colour(variant: str) -> str:
    spec = VARIANTS[variant]
    if spec.engine in ("graph", "llamacpp", "vllm"):
        return COLOURS[spec.engine]
    if spec.engine == "onnx":
        return COLOURS["onnx-kv" if spec.cache else "onnx"]
    return COLOURS["bnb" if spec.quantizer == "bitsandbytes" else "torch"]


def engine(variant: str) -> str:
    """What a variant's colour stands for."""
    spec = VARIANTS[variant]
    name = schema()["engines"][spec.engine]["title"]
    if spec.engine == "onnx":
        return name if spec.cache else f"{name} without a cache"
    return "bitsandbytes" if colour(variant) == COLOURS["bnb"] else name


def hollow(variant: str) -> bool:
    """A twin of an earlier variant with its colour and marker: drawn without a filling."""
    look = colour(variant), VARIANTS[variant].precision
    earlier = list(VARIANTS)[: list(VARIANTS).index(variant)]
    return any((colour(other), VARIANTS[other].precision) == look for other in earlier)


def marker(variant: str) -> dict:
    """Keywords of plot for a variant's marker."""
    face = "white" if hollow(variant) else colour(variant)
    shape = MARKERS.get(VARIANTS[variant].precision, OTHER)
    return {"marker": shape, "color": colour(variant), "markerfacecolor": face, "markersize": 6.5}


def dashes(names: Sequence[str]) -> dict[str, str | tuple]:
    """The dash of each variant's line: its precision's, or the next one that no other line of its colour has."""
    found: dict[str, str | tuple] = {}
    for name in names:
        taken = [found[other] for other in found if colour(other) == colour(name)]
        own = DASHES.get(VARIANTS[name].precision, MORE_DASHES[0])
        free = [dash for dash in (own, *MORE_DASHES, *DASHES.values()) if dash not in taken]
        found[name] = free[0] if free else own
    return found


def models(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["model"]))


def variants(table: pd.DataFrame) -> list[str]:
    """The variants of a table in the one order."""
    present = set(table["variant"])
    return [variant for variant in VARIANTS if variant in present]


def rows_by_model(table: pd.DataFrame, width: float = 7.2) -> tuple[Figure, dict[str, Axes]]:
    """Panels with one row per variant: two columns from two models on; the first variant is on top."""
    names, order = models(table), variants(table)
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(width if columns == 1 else 10.5, lines * (0.32 * len(order) + 1.0) + 0.5),
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    panels = dict(zip(names, axes.flat, strict=False))
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for name, axis in panels.items():
        axis.set_title(name)
        axis.set_yticks(range(len(order)), order)
        axis.set_ylim(len(order) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", visible=False)
        if axis.get_subplotspec().is_first_col():
            for tick, variant in zip(axis.get_yticklabels(), order, strict=True):
                tick.set_color(colour(variant))
    return figure, panels


def cells(summary: pd.DataFrame, panels: dict[str, Axes]) -> Iterator[tuple[Axes, int, pd.Series]]:
    """(axis, place on the y axis, cell) of every model × variant; a cell that is not in the study has its status."""
    order = variants(summary)
    known = {(cell["model"], cell["variant"]): cell for _, cell in summary.iterrows()}
    for (model, axis), (place, variant) in itertools.product(panels.items(), enumerate(order)):
        if (model, variant) in known:
            yield axis, place, known[model, variant]
        else:
            gap(axis, place, "not in this study")


def bar(axis: Axes, place: int, variant: str, value: float) -> None:
    """A row's bar. Its row is labelled, so it is filled even where the variant's marker elsewhere is hollow."""
    axis.barh(place, value, height=0.62, color=colour(variant), edgecolor=colour(variant), alpha=0.75)


def label_x(figure: Figure, panels: dict[str, Axes], text: str) -> None:
    """The x label under the lowest panel of each column."""
    names = list(panels)
    for axis in [panels[name] for name in names[-2 if len(names) > 1 else -1 :]]:
        axis.set_xlabel(text)


def gap(axis: Axes, place: int, status: str) -> None:
    """What stands in a row that has no figure: its status, at the left edge."""
    axis.annotate(
        status.replace("_", " "), (0, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", ha="left", color=GREY, fontsize=8, fontstyle="italic", bbox=PAPER,
    )  # fmt: skip


def note(axis: Axes, x: float, y: float, text: str) -> None:
    """A small value beside a mark."""
    axis.annotate(
        text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", ha="left", color=GREY, fontsize=7.5,
        bbox=PAPER if text else None,
    )  # fmt: skip


def whiskers(axis: Axes, x: float, y: float, low: float, high: float, shade: str) -> None:
    """A horizontal interval; an end that lies on the wrong side of x by rounding is drawn at x."""
    axis.errorbar(
        x, y, xerr=[[max(0.0, x - low)], [max(0.0, high - x)]], fmt="none", ecolor=shade, elinewidth=1.2, capsize=2.5
    )


def plain_log(axis) -> None:
    """Make an x or y axis logarithmic, with plain numbers at 1, 2 and 5."""
    if axis.axis_name == "x":
        axis.axes.set_xscale("log")
    else:
        axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, handles: Sequence[Line2D], columns: int = 4, wide: float = 2.0) -> None:
    """One legend for all panels, under them. wide: of a handle, in letters."""
    figure.legend(
        handles=list(handles), loc="outside lower center", ncols=columns, fontsize=8, handletextpad=0.5,
        handlelength=wide,
    )  # fmt: skip


def variant_handles(names: Sequence[str], lines: bool = False) -> list[Line2D]:
    if lines:
        dash = dashes(names)
        return [Line2D([], [], label=name, linestyle=dash[name], **marker(name)) for name in names]
    return [Line2D([], [], label=name, linestyle="none", **marker(name)) for name in names]


def empty(text: str) -> Figure:
    """A figure that says why there is none."""
    figure = plt.figure(figsize=(7.2, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return figure


def save(figure: Figure, path: Path, title: str) -> None:
    """Write the figure; SVG without a date, so that the same figure is the same file."""
    metadata = {"Date": None, "Creator": None, "Title": title} if path.suffix == ".svg" else {}
    with atomic_file(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
        if path.suffix == ".svg":
            temporary.write_text(temporary.read_text().replace(f"'{FONT}'", f"'{FONT}', {FALLBACKS}"))
    plt.close(figure)
