"""The answer in a few lines, for a reader who knows none of our words."""

from collections.abc import Mapping, Sequence

from workflow.tradeoff.decide import advice, scenarios
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import OBJECTIVES, number

# the study's scenarios that lead, and what each is for
LEADS = {"balanced": "For everyday use", "speed-critical": "For speed", "memory-constrained": "For the least memory"}
LAST = "small-model"  # the fourth of the study's, which no reader asks first
MOST = 5
READ = (
    "A token is a piece of a word; speed is tokens a second while an answer is written. Perplexity says how unsure a "
    "model is of text that people wrote: higher is worse."
)


def leading(answers: Sequence[Mapping]) -> list[str]:
    """The scenarios that the answer is about: three of the study's, or where a config has its own, five at most."""
    present = list(dict.fromkeys(entry["scenario"] for entry in answers))
    known = [name for name in LEADS if name in present]
    return known if known and set(present) <= {*LEADS, LAST} else present[:MOST]


def lines(rows: Sequence[Mapping], answers: Sequence[Mapping], failed: Sequence[Mapping], where: str) -> list[str]:
    """One line a scenario, then what was measured and how to read it; of several models the lines name each."""
    found = []
    for name in leading(answers):
        own = [entry for entry in answers if entry["scenario"] == name]
        text = "; ".join(one_of_many(entry) for entry in own) if len(own) > 1 else sentence(own[0])
        found.append(f"{head(own[0])}: {text}.")
    several = len({row["model"] for row in rows}) > 1
    against = " or ".join(f"{name} ({VARIANTS[name].words})" for name in dict.fromkeys(row["baseline"] for row in rows))
    what = f"{len(rows)} cells (one model run in one way)" if several else f"{len(rows)} ways to run {rows[0]['model']}"
    found.append(
        f"Measured on {where}: {what}, {len(rows) - len(failed)} with figures. The baseline, against which × "
        f"and % are, is {against}. {READ}"
    )
    slow = [row for row in rows if row["status"] == "ok" and row["speed_verdict"] == "slower"]
    apart = [row for row in rows if row.get("deployable") == "no"]
    without: dict[str, list[Mapping]] = {}
    for entry in failed:
        without.setdefault(entry["status"].replace("_", " "), []).append(entry)
    words = "; ".join(f"{status}: {_names(cells, several)}" for status, cells in without.items())
    beside = f" For comparison only, since nobody serves them: {_names(apart, several)}." if apart else ""
    found.append(f"Slower than the baseline: {_names(slow, several)}.{beside} Without a figure: {words or 'none'}.")
    return found


def head(entry: Mapping) -> str:
    """A scenario's name for a reader, with what it asks for."""
    limits = f"; limits: {entry['limits']}" if entry["limits"] != "none" else ""
    return f"{LEADS.get(entry['scenario'], entry['scenario'])} ({OBJECTIVES[entry['objective']]}{limits})"


def _names(cells: Sequence[Mapping], several: bool) -> str:
    """Cells by their variants, with their models where there are several."""
    return advice.by_variant(cells) if several else ", ".join(cell["variant"] for cell in cells) or "none"


def one_of_many(entry: Mapping) -> str:
    """A scenario's answer for one of several models: the cell with one figure."""
    return entry["cell"] + (", accuracy open" if entry["accuracy"] == "open" and entry["winner"] else "")


def sentence(entry: Mapping) -> str:
    """A scenario's answer for the only model, its figures without intervals, which the table has."""
    if entry["winner"] is None:
        return f"nothing that was measured can be deployed within these limits ({entry['refused_short']})"
    name = f"{entry['winner']} ({VARIANTS[entry['winner']].words})"
    figures = entry.get("rate") or f"{number(entry['decode_tokens_per_s'])} tokens/s"
    if entry["winner"] != entry["baseline"]:
        figures += f", {entry['speedup']:.3g} times the baseline's speed"
    figures += f", {number(entry['memory_mb'])} MB of weights and cache"
    if entry["winner"] == entry["baseline"]:
        text = f"nothing that can be deployed beats the baseline, so keep {name}: {figures}"
    elif entry["objective"] != "memory" and entry["speed_verdict"] == "tie":
        text = f"nothing is measurably faster than the baseline; run {name}: {figures}"
    else:
        text = f"run {name}: {figures}"
    if entry["degradation_pct"] is not None and entry["winner"] != entry["baseline"]:
        text += f", perplexity {entry['degradation_pct']:+.2f}%"
    mind = f"; mind that {entry['mind']}" if entry["mind"] else ""
    return f"{text}{scenarios.rival(entry)}{mind}"
