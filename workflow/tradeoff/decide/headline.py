"""The answer in a few lines, for a reader who knows none of our words."""

import math
from collections.abc import Mapping, Sequence

from workflow.tradeoff import stats
from workflow.tradeoff.decide import advice, phrases, scenarios
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import LEADS, OBJECTIVES, brief, number

LAST = "small-model"  # the fourth of the study's, which no reader asks first
MOST = 5
AGAIN = "\0"  # in a sentence: what comes before it is the answer, what follows belongs to one scenario alone
READ = (
    "A token is a piece of a word; speed is tokens a second while an answer is written, its prompt already read. "
    "Perplexity: how unsure a model is of text that people wrote; higher is worse. Brackets: 95% intervals."
)


def leading(answers: Sequence[Mapping]) -> list[str]:
    """The scenarios that the answer is about: three of the study's, or where a config has its own, five at most."""
    present = list(dict.fromkeys(entry["scenario"] for entry in answers))
    known = [name for name in LEADS if name in present]
    return known if known and set(present) <= {*LEADS, LAST} else present[:MOST]


def lines(rows: Sequence[Mapping], answers: Sequence[Mapping], failed: Sequence[Mapping], where: str) -> list[str]:
    """One line a scenario, then where the weights come from if that must be minded, what was measured and how to read
    it; of several models the lines name each.
    """
    found, told = [], {}
    for name in leading(answers):
        own = [entry for entry in answers if entry["scenario"] == name]
        text = "; ".join(one_of_many(entry) for entry in own) if len(own) > 1 else sentence(own[0])
        first = told.setdefault(text.partition(AGAIN)[0], name) if len(own) == 1 else name
        if first != name:
            known = LEADS.get(first, first)
            text = f"the same as {known[0].lower()}{known[1:]}{text.partition(AGAIN)[2]}"
        found.append(f"{head(own[0])}: {text.replace(AGAIN, '')}.")
    found += sources(rows)
    several = len({row["model"] for row in rows}) > 1
    against = " or ".join(f"{name} ({VARIANTS[name].words})" for name in dict.fromkeys(row["baseline"] for row in rows))
    what = f"{len(rows)} cells (one model run in one way)" if several else f"{len(rows)} ways to run {rows[0]['model']}"
    found.append(
        f"Measured on {where}: {what}, {len(rows) - len(failed)} with figures. The baseline, against which × "
        f"and % are, is {against}.{_sharpness(rows)} {READ}"
    )
    slow = [row for row in rows if row["status"] == "ok" and row["speed_verdict"] == "slower"]
    without: dict[str, list[Mapping]] = {}
    for entry in failed:
        without.setdefault(entry["status"].replace("_", " "), []).append(entry)
    words = "; ".join(f"{status}: {_names(cells, several)}" for status, cells in without.items())
    apart: dict[str, list[Mapping]] = {}
    for row in rows:
        if row.get("deployable") == "no":
            apart.setdefault(VARIANTS[row["variant"]].reference.partition(";")[0], []).append(row)
    beside = "; ".join(f"{_names(cells, several)} ({why})" for why, cells in apart.items())
    beside = f" For comparison only: {beside}." if apart else ""
    found.append(f"Slower than the baseline: {_names(slow, several)}.{beside} Without a figure: {words or 'none'}.")
    return found


def sources(rows: Sequence[Mapping]) -> list[str]:
    """A line for each model whose checkpoint was quantized before it came: what the figures cannot show then."""
    found = []
    for model, own in advice.by_model(rows).items():
        if not (stored := own[0].get("weights_from")):
            continue
        itself = [row["variant"] for row in own if VARIANTS[row["variant"]].recipe.get("type") == "source"]
        file = f", and {' and '.join(itself)} is that file itself" if itself else ""
        apart = (
            f" ({' and '.join(itself)} differs from the baseline by llama.cpp's arithmetic, which rounds what such "
            "weights are multiplied by to 8 bits)"
            if itself
            else ""
        )
        favoured = (
            f" So accuracy favours {' and '.join(itself)} from the start: made from the original checkpoint, another "
            "precision may do as well."
            if itself
            else ""
        )
        found.append(
            f"Mind where the weights come from: {model} was fetched as {stored}. The baseline's floating-point weights "
            f"were made from it{file}; every other precision was made from it too, a second rounding. What the file "
            f"lost against the original checkpoint is in no figure here{apart}.{favoured}"
        )
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
    """A scenario's answer for the only model; what may differ where another has the same answer follows AGAIN."""
    if entry["winner"] is None:
        return f"nothing that was measured can be deployed within these limits ({entry['refused_short']})"
    name = f"{entry['winner']} ({VARIANTS[entry['winner']].told(entry['bits_per_weight'])})"
    figures = _figures(entry)
    if entry["winner"] == entry["baseline"]:
        text = f"nothing that can be deployed beats the baseline, so keep {name}: {figures}"
    elif entry["objective"] != "memory" and entry["speed_verdict"] in stats.NO_DIFFERENCE:
        text = f"nothing is measurably faster than the baseline; run {name}: {figures}"
    else:
        text = f"run {name}: {figures}"
    mind = f"; mind that {entry['mind']}" if entry["mind"] else ""
    return f"{text}{AGAIN}{scenarios.rival(entry)}{mind}"


def _wait(entry: Mapping) -> str:
    """The time to the first token against the baseline's, in words; empty for the baseline."""
    low, high = entry["ttft_ratio_low"], entry["ttft_ratio_high"]
    if entry["winner"] == entry["baseline"] or low is None:
        return ""
    if low <= 1 <= high:
        return ", not told apart from the baseline's"
    return f", {phrases.within(entry['ttft_ratio'], low, high)} times the baseline's time"


def _sharpness(rows: Sequence[Mapping]) -> str:
    """How far the speedups may be off, from the sharpest to the widest; empty where none has an interval."""
    own = [row for row in rows if row["status"] == "ok" and row["variant"] != row["baseline"]]
    widths = [row["half_width_pct"] for row in own if not math.isnan(row["half_width_pct"])]
    if not widths:
        return ""
    ends = " to ".join(dict.fromkeys(f"±{number}%" for number in (round(min(widths)), round(max(widths)))))
    return f" Times as fast are known to {ends}."


def _figures(entry: Mapping) -> str:
    """Speed, memory and accuracy of an answer, with their intervals."""

    def told(name: str) -> str:
        return phrases.within(*(entry[f"{name}{end}"] for end in ("", "_low", "_high")))

    text = entry.get("rate") or f"{told('decode_tokens_per_s')} tokens/s"
    if entry["winner"] != entry["baseline"]:
        text += f", {told('speedup')} times as fast as the baseline beside it"
        if "rate" not in entry and entry["throughput_ratio"] is not None:
            text += f" ({told('throughput_ratio')} times with the prompt's time counted)"
    if entry["ttft_ms"] is not None and "rate" not in entry:
        text += f"; the first token after {brief(entry['ttft_ms'])} ms{_wait(entry)}"
    peak = max(entry["peak_mb"] or 0, entry["load_peak_mb"] or 0)
    kept = f" for {number(entry['cache_tokens'])} tokens" if entry["cache_tokens"] else ""
    text += f"; {brief(entry['memory_mb'])} MB of weights and cache{kept}"
    text += f", {brief(peak)} MB the whole process at most" if peak else ""
    if entry["degradation_pct"] is not None and entry["winner"] != entry["baseline"]:
        ends = (entry[f"degradation{end}_pct"] for end in ("", "_low", "_high"))
        text += f"; perplexity {phrases.within(*ends, form='{:+.2f}')} %"
        same = entry["same_text_pct"]
        text += f", {same:.0f}% of the short answers word for word the baseline's" if same is not None else ""
    return text
