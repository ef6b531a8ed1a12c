"""The roofline: decode speed in percent of what the memory bandwidth allows that was measured beside each cell."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.tradeoff.report import places, style
from workflow.tradeoff.words import brief

LIMIT, BOUND = 100, 50  # % of the bandwidth: no faster run is possible; from here on it is what holds a cell back


def roofline(tables: Path) -> Figure:
    """A bar of MBU for each cell, under its own limit; beside it the bytes, speed and bandwidth that make it."""
    summary = places.read(tables / "summary.csv")
    if summary["mbu_pct"].notna().sum() == 0:
        return style.empty("No memory bandwidth was measured in this run, so there is no roofline.")
    figure, panels = style.rows_by_model(summary, width=8.2)
    for axis, place, cell in style.cells(summary, panels):
        if pd.isna(cell.mbu_pct):
            style.gap(axis, place, cell.status if cell.status != "ok" else "no bandwidth measured")
            continue
        style.bar(axis, place, cell.variant, cell.mbu_pct)
        read, speed, bandwidth = cell.bytes_per_token / 1e6, cell.decode_tokens_per_s, cell.bandwidth_gb_per_s
        words = f"{brief(read)} MB × {brief(speed)}/s of {brief(bandwidth)} GB/s"
        style.note(axis, cell.mbu_pct, place, f"{cell.mbu_pct:.0f}%: {words}")
    reach = max(LIMIT, summary["mbu_pct"].max())
    for axis in panels.values():
        axis.axvline(LIMIT, color="black", linewidth=1.2, zorder=0.5)
        axis.axvline(BOUND, color=style.GREY, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0.5)
        axis.set_xlim(0, reach * (1.5 if len(panels) == 1 else 2))  # room for the words
        axis.set_xticks(range(0, int(reach) + 1, 25))
    style.legend(
        figure,
        [
            Line2D([], [], color="black", linewidth=1.2, label="limit by the bandwidth measured beside the cell"),
            Line2D(
                [], [], color=style.GREY, linewidth=0.9, linestyle=(0, (3, 3)),
                label="half of it: from here on bandwidth-bound",
            ),
        ],
    )  # fmt: skip
    style.label_x(figure, panels, "decode speed [% of the limit that memory bandwidth sets]")
    return figure
