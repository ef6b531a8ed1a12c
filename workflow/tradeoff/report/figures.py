"""Draw figures from the tables.

    python -m workflow.tradeoff.report.figures speed memory --tables results/demo/tables \\
        --output results/demo/figures/speed.svg results/demo/figures/memory.svg

A PNG is written where the output's name ends so. ``tradeoff`` also reads pareto.csv, which decide writes.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETLEFT
from matplotlib.patches import Patch

from workflow.tradeoff import errors, stats, variants
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.report import places, style
from workflow.tradeoff.report.figures_growth import growth
from workflow.tradeoff.report.figures_launch import launch
from workflow.tradeoff.report.figures_loads import loads
from workflow.tradeoff.report.figures_roofline import roofline
from workflow.tradeoff.report.figures_tradeoff import WIDEST, tradeoff
from workflow.tradeoff.words import brief, number

KL = {"kl_p50": "median", "kl_p90": "90%", "kl_p99": "99%", "kl_mean": "mean"}
SEEN = 0.01  # of the axis: a narrower part of a bar has no entry in the legend
LEAST_KL = 1e-9  # nats: below it a divergence is rounding of the log-probabilities


def speed(tables: Path) -> Figure:
    """Decode tokens a second with its interval and the speedup over the baseline."""
    summary = places.read(tables / "summary.csv")
    if summary["decode_tokens_per_s"].notna().sum() == 0:
        return style.empty("No decode speed was measured.")
    figure, panels = style.rows_by_model(summary)
    limits: dict = {}
    for axis, place, cell in style.cells(summary, panels):
        if pd.isna(cell.decode_tokens_per_s):
            style.gap(axis, place, cell.status)
            continue
        style.bar(axis, place, cell.variant, cell.decode_tokens_per_s)
        low, high = cell.decode_tokens_per_s_low, cell.decode_tokens_per_s_high
        style.whiskers(axis, cell.decode_tokens_per_s, place, low, high, "black")
        if cell.variant == cell.baseline:
            ratio = "baseline"
        elif pd.isna(cell.speedup):
            ratio = "no ratio"
        else:
            ratio = f"{cell.speedup:.2f}×"
            if cell.speed_verdict in stats.NO_DIFFERENCE:
                ratio += f" ({cell.speed_verdict})"
        reach = cell.decode_tokens_per_s if pd.isna(high) else min(high, WIDEST * cell.decode_tokens_per_s)
        limits[axis] = max(limits.get(axis, 0), reach)
        noisy = ", noisy" if str(cell.noisy).lower() == "true" else ""
        style.note(axis, reach, place, f"{number(cell.decode_tokens_per_s)}, {ratio}{noisy}")
    for axis, limit in limits.items():
        axis.set_xlim(0, limit * 1.4)  # room for the values
    style.label_x(figure, panels, "decode speed [tokens/s], median and 95% interval")
    return figure


def latency(tables: Path) -> Figure:
    """Distribution of the inter-token latency, and the time to first token."""
    summary, itl = places.read(tables / "summary.csv"), places.read(tables / "itl.csv")
    if itl.empty:
        return style.empty("No inter-token latency was measured.")
    wide = itl.pivot(index=["model", "variant"], columns="quantile_pct", values="itl_ms")
    figure, panels = style.rows_by_model(summary)
    for axis, place, cell in style.cells(summary, panels):
        if (cell.model, cell.variant) not in wide.index:
            style.gap(axis, place, cell.status)
            continue
        line, shade = wide.loc[(cell.model, cell.variant)], style.colour(cell.variant)
        axis.plot([line[1], line[99]], [place, place], color=shade, linewidth=1)
        axis.plot([line[10], line[90]], [place, place], color=shade, linewidth=5, solid_capstyle="butt", alpha=0.55)
        axis.plot(line[50], place, marker="|", color="black", markersize=9, markeredgewidth=1.6)
        axis.plot(cell.ttft_ms, place, marker="x", color=style.GREY, markersize=5)
    for axis in panels.values():
        style.plain_log(axis.xaxis)
    style.legend(
        figure,
        [
            Line2D([], [], color="black", marker="|", linestyle="none", markersize=9, label="ITL, median"),
            Line2D([], [], color=style.GREY, linewidth=5, alpha=0.55, label="ITL, 10% to 90%"),
            Line2D([], [], color=style.GREY, linewidth=1, label="ITL, 1% to 99%"),
            Line2D([], [], color=style.GREY, marker="x", linestyle="none", markersize=5, label="time to first token"),
        ],
    )
    style.label_x(figure, panels, "latency [ms], logarithmic")
    return figure


def memory(tables: Path) -> Figure:
    """Weights and cache as bars and in words, the peaks of the process as marks."""
    summary = places.read(tables / "summary.csv")
    if summary["weight_mb"].notna().sum() == 0:
        return style.empty("No memory was measured.")
    figure, panels = style.rows_by_model(summary)
    reaches = summary.groupby("model")[["memory_mb", "peak_mb", "load_peak_mb"]].max().max(axis=1)
    room = 1.22 if len(panels) == 1 else 1.4  # for the words
    seen = False
    for axis, place, cell in style.cells(summary, panels):
        if pd.isna(cell.weight_mb):
            style.gap(axis, place, cell.status)
            continue
        style.bar(axis, place, cell.variant, cell.weight_mb)
        cache = 0 if pd.isna(cell.cache_mb) else cell.cache_mb
        axis.barh(place, cache, left=cell.weight_mb, height=0.62, color=style.GREY)
        seen = seen or cache > SEEN * room * reaches[cell.model]
        axis.plot(cell.peak_mb, place, marker="o", color="black", markersize=4)
        axis.plot(cell.load_peak_mb, place, marker=">", color="black", markerfacecolor="white", markersize=5)
        edge = pd.Series([cell.weight_mb + cache, cell.peak_mb, cell.load_peak_mb]).max()
        parts = (cell.weight_mb, cache) if cache else (cell.weight_mb,)
        style.note(axis, edge, place, f"bar: {' + '.join(map(brief, parts))}")
    for model, axis in panels.items():
        axis.set_xlim(0, reaches[model] * room if reaches[model] > 0 else None)
    kinds = ", ".join(sorted(summary["memory_kind"].dropna().unique()))
    handles = [
        Patch(color="#8F8F8F", alpha=0.6, label="weights (in the variant's colour)"),
        Patch(color=style.GREY, label="keys and values"),
        Line2D([], [], color="black", marker="o", linestyle="none", markersize=4, label="peak, decoding"),
        Line2D(
            [], [], color="black", marker=">", markerfacecolor="white", linestyle="none", markersize=5,
            label="peak, loading",
        ),
    ]  # fmt: skip
    lengths = " or ".join(map(number, sorted(set(summary["cache_tokens"].dropna()))))
    words = f"bar: weights + keys and values{f' of {lengths} tokens' if lengths else ''}"
    handles.append(Line2D([], [], linestyle="none", label=words if seen else f"{words}, too few to see"))
    style.legend(figure, handles if seen else [handles[0], *handles[2:]], columns=2 if len(panels) == 1 else 3)
    style.label_x(figure, panels, f"memory [MB]; peaks: {kinds}")
    return figure


def perplexity(tables: Path) -> Figure:
    """Perplexity of each cell; the line is the baseline's. Cells that diverged are named, not drawn."""
    summary = places.read(tables / "summary.csv")
    if summary["perplexity"].notna().sum() == 0:
        return style.empty("No perplexity was evaluated.")
    figure, panels = style.rows_by_model(summary)
    for axis, place, cell in style.cells(summary, panels):
        if pd.isna(cell.perplexity) or cell.status == "diverged":
            style.gap(axis, place, cell.status if cell.status != "ok" else cell.accuracy_status)
            continue
        axis.plot(cell.perplexity, place, **style.marker(cell.variant))
        change = (
            "" if pd.isna(cell.degradation_pct) or cell.variant == cell.baseline else f" ({cell.degradation_pct:+.2f}%)"
        )
        style.note(axis, cell.perplexity, place, f"{cell.perplexity:.2f}{change}")
        if cell.variant == cell.baseline:
            axis.axvline(cell.perplexity, color=style.GREY, linewidth=0.8, linestyle=(0, (3, 3)))
    for axis in panels.values():
        low, high = axis.get_xlim()
        axis.set_xlim(low - (high - low) * 0.05, high + (high - low) * 0.4)
    style.label_x(figure, panels, "perplexity, lower is better; dashed: the baseline's")
    return figure


def delta_nll(tables: Path) -> Figure:
    """Paired change of NLL against the baseline with its interval."""
    summary = places.read(tables / "summary.csv")
    if summary["delta_nll"].notna().sum() == 0:
        return style.empty("No change of NLL was evaluated.")
    figure, panels = style.rows_by_model(summary)
    for axis, place, cell in style.cells(summary, panels):
        if pd.isna(cell.delta_nll) or cell.status == "diverged":
            fallback = cell.accuracy_status if cell.accuracy_status != "ok" else "no ratio"
            style.gap(axis, place, cell.status if cell.status != "ok" else fallback)
            continue
        style.whiskers(axis, cell.delta_nll, place, cell.delta_nll_low, cell.delta_nll_high, style.colour(cell.variant))
        axis.plot(cell.delta_nll, place, **style.marker(cell.variant))
        edge = cell.delta_nll if pd.isna(cell.delta_nll_high) else cell.delta_nll_high
        style.note(axis, edge, place, "" if cell.quality_verdict == "worse" else str(cell.quality_verdict))
    for axis in panels.values():
        axis.axvline(0, color=style.GREY, linewidth=0.8, linestyle=(0, (3, 3)))
        low, high = axis.get_xlim()
        axis.set_xlim(low - (high - low) * 0.05, high + (high - low) * 0.3)
    style.label_x(figure, panels, "change of NLL against the baseline [nats/token], 95% interval")
    return figure


def divergence(tables: Path) -> Figure:
    """Percentiles of the KL divergence from the baseline, on a logarithmic axis."""
    summary = places.read(tables / "summary.csv")
    if summary["kl_mean"].notna().sum() == 0:
        return style.empty("No divergence from a baseline was evaluated.")
    figure, panels = style.rows_by_model(summary)
    floors = {model: _floor(part) for model, part in summary.groupby("model")}
    for axis, place, cell in style.cells(summary, panels):
        if cell.variant == cell.baseline:
            style.gap(axis, place, "baseline")
        elif pd.isna(cell.kl_mean):
            style.gap(axis, place, cell.status if cell.status != "ok" else cell.accuracy_status)
        else:
            _diverged(axis, place, cell, floors[cell.model])
    for model, axis in panels.items():
        axis.set_xscale("log")
        axis.set_xlim(left=floors[model])
    style.legend(
        figure,
        [
            Line2D([], [], color=style.GREY, linewidth=5, alpha=0.55, label="50% to 90% of the tokens"),
            Line2D([], [], color=style.GREY, linewidth=1.2, marker="|", markersize=8, label="to 99%"),
            Line2D([], [], color=style.GREY, marker="o", linestyle="none", markersize=6, label="mean"),
            Line2D([], [], color=style.GREY, marker=CARETLEFT, linestyle="none", label="from below the axis"),
        ],
    )
    style.label_x(figure, panels, "KL divergence from the baseline [nats/token], logarithmic")
    return figure


def _floor(part: pd.DataFrame) -> float:
    """Where a panel of KL divergences begins: left of its least value that is more than rounding."""
    known = part[list(KL)].to_numpy(dtype=float)
    known = known[known >= LEAST_KL]
    return known.min() / 2 if known.size else LEAST_KL


def _diverged(axis, place: int, cell, floor: float) -> None:
    """One row of divergence. What lies below the axis, as 0 does, is an arrow at its edge and stands in words."""
    shade, below = style.colour(cell.variant), [name for name in KL if cell[name] < floor]
    middle, high, highest, mean = (max(floor, cell[name]) for name in KL)
    axis.plot([middle, highest], [place, place], color=shade, linewidth=1.2)
    axis.plot([middle, high], [place, place], color=shade, linewidth=5, alpha=0.55, solid_capstyle="butt")
    if "kl_p99" not in below:
        axis.plot(highest, place, marker="|", color=shade, markersize=8)
    if "kl_mean" not in below:
        axis.plot(mean, place, **style.marker(cell.variant))
    if below:
        axis.plot(floor, place, marker=CARETLEFT, color=shade, markersize=7)
        style.note(axis, highest, place, ", ".join(f"{KL[name]} {number(cell[name])}" for name in below))


FIGURES = {
    "speed": speed,
    "latency": latency,
    "memory": memory,
    "perplexity": perplexity,
    "delta_nll": delta_nll,
    "divergence": divergence,
    "tradeoff": tradeoff,
    "growth": growth,
    "roofline": roofline,
    "launch": launch,
    "loads": loads,
}


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("names", nargs="+", choices=sorted(FIGURES))
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER", help="what summarize wrote")
    parser.add_argument(
        "--output", required=True, nargs="+", type=Path, metavar="FILE", help=".svg or .png, one for each name"
    )
    options = parser.parse_args(argv)
    if len(options.output) != len(options.names):
        raise UserError(f"--output: {len(options.output)} files for {len(options.names)} figures: give one for each")
    for name, output in zip(options.names, options.output, strict=True):
        style.save(FIGURES[name](options.tables), output, name)


if __name__ == "__main__":
    errors.run(main)
