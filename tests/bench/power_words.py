"""What the trials of ``power`` say: its table, its sentences and its figure."""

import json
import math
from pathlib import Path

import numpy as np

from workflow.tradeoff import precision, samples

NO_DIFFERENCE = ("tie", "undecided")  # right for A against A
VERDICTS = (*NO_DIFFERENCE, "slower", "faster", "disturbed")
NAMED = ("cpu", "threads", "budget_s")  # what each run says of where and how long it ran
TIES, SLOWER = 0.95, 0.80  # shares of right answers that are wanted, without and with a slowdown


def table(entries: list[dict]) -> str:
    """A line of markdown for each setting."""
    columns = ["neighbour", "planted", "runs", *VERDICTS, "median half-width", "median seconds"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    trials = [entry for entry in entries if "verdict" in entry]
    for kind, plant in dict.fromkeys((entry["neighbour"], entry["plant"]) for entry in trials):
        own = [entry for entry in trials if (entry["neighbour"], entry["plant"]) == (kind, plant)]
        counts = [sum(entry["verdict"] == word for entry in own) for word in VERDICTS]
        widths = [entry["high"] / entry["value"] - 1 for entry in own if "value" in entry]
        width = f"{np.median(widths):.1%}" if widths else "–"
        seconds = np.median([entry["seconds"] for entry in own])
        words = [kind, f"{plant:g}%", len(own), *counts, width, f"{seconds:.1f}"]
        lines.append(f"| {' | '.join(map(str, words))} |")
    return "\n".join(lines)


def reached(entries: list[dict]) -> str:
    """Each setting's share of right answers, and whether that is what was wanted."""
    found = []
    trials = [entry for entry in entries if "verdict" in entry]
    for kind, plant in dict.fromkeys((entry["neighbour"], entry["plant"]) for entry in trials):
        right, wanted = (("slower",), SLOWER) if plant else (NO_DIFFERENCE, TIES)
        own = [entry["verdict"] in right for entry in trials if (entry["neighbour"], entry["plant"]) == (kind, plant)]
        word = "reached" if np.mean(own) >= wanted else "not reached"
        right = " or ".join(right)
        found.append(f"- neighbour {kind}, {plant:g}% planted: {right} in {np.mean(own):.0%} of the runs: {word}.")
    return "\n".join(found)


def facts(entries: list[dict]) -> str:
    """On what machine state, in words."""
    loads = [entry["load"] for entry in entries if "verdict" in entry]
    names = ", ".join(sorted({entry["model"] for entry in entries}))
    found = {name: ", ".join(sorted({str(entry[name]) for entry in entries if name in entry})) for name in NAMED}
    return (
        f"Model {names}; {found['cpu']}, {found['threads']} threads; {found['budget_s']} s a cell; "
        f"load average before a run: median {np.median(loads):.1f}, at most {max(loads):.1f}."
    )


def waiting(entries: list[dict]) -> str:
    """What a stopped process beside costs, in words."""
    logs = np.array([entry["idle"] for entry in entries if "idle" in entry])
    if len(logs) < 2:
        return "not measured"
    half = precision.half_width(logs, len(logs))
    low, value, high = np.exp(logs.mean() + np.array([-half, 0, half]))
    return f"{value:.3f} × [{low:.3f}, {high:.3f}] its speed alone, over {len(logs)} rounds"


def widths(folder: Path | None) -> str:
    """Half-widths of the speedups of a study's cells."""
    found = {}
    for path in sorted(folder.glob("*/*.json")) if folder else ():
        data = json.loads(path.read_text())
        if data["status"] == "ok" and data["variant"] != data["baseline"]:
            protocol = data["protocols"]["standard"]
            logs = [np.median(turns) for turns in samples.pairs(protocol["replicates"], samples.decode_rate)]
            found[data["variant"]] = math.expm1(precision.half_width(np.array(logs), protocol["pairs"]))
    each = ", ".join(f"{name} {width:.1%}" for name, width in found.items())
    return f"median {np.median(list(found.values())):.1%} ({each})" if found else "not measured"


def figure(entries: list[dict], path: Path) -> None:
    """Every trial's interval, in order of its value, one panel a setting."""
    from workflow.tradeoff.report import style

    trials = [entry for entry in entries if "value" in entry]
    settings = list(dict.fromkeys((entry["neighbour"], entry["plant"]) for entry in trials))
    drawn, axes = style.plt.subplots(1, len(settings), figsize=(2.6 * len(settings), 3.2), sharey=True, squeeze=False)
    for axis, (kind, plant) in zip(axes[0], settings, strict=True):
        own = [entry for entry in trials if (entry["neighbour"], entry["plant"]) == (kind, plant)]
        for place, entry in enumerate(sorted(own, key=lambda entry: entry["value"])):
            ink = style.GREY if entry["verdict"] in NO_DIFFERENCE else style.COLOURS["bnb"]
            axis.plot([place, place], [entry["low"], entry["high"]], color=ink, linewidth=0.9)
            axis.plot(place, entry["value"], ".", color=ink, markersize=3)
        for truth in {1.0, 1 / (1 + plant / 100)}:
            axis.axhline(truth, color="black", linewidth=0.7, linestyle="-" if truth == 1 else "--")
        axis.set_title(f"neighbour: {kind}\nplanted: {plant:g}%", fontsize=8)
        axis.set_xticks([])
    axes[0][0].set_ylabel("speedup and 95% interval")
    style.save(drawn, path, "What a cell of the default study can tell apart")
