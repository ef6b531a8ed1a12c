"""The study on trial in one picture: how many statements of each section stand, fall, or could not be checked.

    python -m workflow.tradeoff.report.claims_figure --claims results/demo/tables/claims.csv \\
        --output results/demo/figures/claims.svg
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from workflow.tradeoff import errors
from workflow.tradeoff.report import claimed, style
from workflow.tradeoff.words import FALLS, NOT_CHECKED, STANDS, VERDICTS

# of Okabe and Ito's colours the two that lie farthest apart in hue and in lightness; hatches tell them apart in print
LOOKS = {
    STANDS: {"color": "#0072B2"},
    FALLS: {"color": "#E69F00", "hatch": "////"},
    NOT_CHECKED: {"color": "#D9D9D9"},
}
WHITE_ON = (STANDS,)


def draw(rows: Sequence[Mapping]) -> Figure:
    """Stacked bars, one per section in the document's order, and one for all; rows as in claims.csv."""
    if not rows:
        return style.empty("no statements were judged")
    sections = list(dict.fromkeys(row["section"] for row in rows))
    tally = {section: Counter(row["verdict"] for row in rows if row["section"] == section) for section in sections}
    tally["The whole study"] = sum(tally.values(), Counter())
    names = list(tally)
    figure, axis = plt.subplots(figsize=(7.2, 0.36 * len(names) + 1.3), layout="constrained")
    for place, name in enumerate(names):
        total, left = sum(tally[name].values()), 0.0
        for outcome in VERDICTS:
            count = tally[name][outcome]
            width = 100 * count / total
            axis.barh(place, width, left=left, height=0.7, edgecolor="white", linewidth=0.8, **LOOKS[outcome])
            if width >= 4:
                box = None if outcome != FALLS else {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
                shade = "white" if outcome in WHITE_ON else "black"
                axis.text(left + width / 2, place, count, ha="center", va="center", fontsize=8, color=shade, bbox=box)
            left += width
        axis.text(101, place, f"{total}", va="center", ha="left", fontsize=8, color=style.GREY)
    axis.text(101, -0.85, "all", va="center", ha="left", fontsize=8, color=style.GREY)
    axis.axhline(len(names) - 1.5, color=style.GREY, linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.55)
    axis.set_xlim(0, 100)
    axis.set_xlabel("statements of the section (%), their number in the bar")
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False)
    handles = [
        Patch(label=outcome, edgecolor="white", facecolor=look["color"], hatch=look.get("hatch"))
        for outcome, look in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--claims", type=Path, required=True, help="tables/claims.csv")
    parser.add_argument("--output", type=Path, required=True, help="the SVG to write; .png works too")
    args = parser.parse_args(argv)
    style.save(draw(claimed.read(args.claims)), args.output, "The study's statements by verdict and section")


if __name__ == "__main__":
    errors.run(main)
