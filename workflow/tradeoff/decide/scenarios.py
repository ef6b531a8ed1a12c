"""Scenarios: which variant of a model meets a set of limits, and which of those is best.

A limit is held against the unfavourable end of the 95% interval, so that "at most 5%" holds at 95% confidence. What
nobody can serve is a reference and never the answer; what is slower than the baseline is one only where memory was
asked for. Of a model whose text was never scored (random weights), accuracy stays open: limits on it refuse nobody.
"""

import math
from collections.abc import Mapping, Sequence

from workflow.tradeoff import stats
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.decide.phrases import cite, figures, short
from workflow.tradeoff.decide.refusals import refusal, refused_words, used_mb
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.words import number

FIGURES = (  # of the answer
    *(f"{name}{end}" for name in ("decode_tokens_per_s", "speedup") for end in ("", "_low", "_high")),
    *(f"throughput_ratio{end}" for end in ("", "_low", "_high")),
    "baseline_tokens_per_s", "ttft_ms", "ttft_ratio", "ttft_ratio_low", "ttft_ratio_high", "same_text_pct",
    "memory_mb", "peak_mb", "load_peak_mb", "degradation_pct", "degradation_low_pct", "degradation_high_pct",
    "bits_per_weight", "cache_tokens",
)  # fmt: skip
LEVEL = 5e-5  # two merits whose ratio is closer to 1 are one


def merit(row: Mapping, scenario: Scenario) -> float:
    """What the scenario's objective makes of a cell; more is better, and a ratio of two merits means something."""
    speed, memory = row["speedup"], 1 / used_mb(row, scenario.memory)
    if scenario.objective in ("speed", "throughput"):
        return speed
    if scenario.objective == "memory":
        return memory
    kept = math.exp(-row["delta_nll"]) if not math.isnan(row["delta_nll"]) else 1.0
    return kept if scenario.objective == "quality" else speed * memory * kept


def answer(rows: Sequence[Mapping], scenario: Scenario) -> dict:
    """The best admissible variant of one model, the runner-up, the margin between them, and who was refused why."""
    limits, known = scenario.limits(), any(not math.isnan(row["delta_nll"]) for row in rows)
    if not known:
        scenario = scenario.without_accuracy()
    refused = {row["variant"]: why for row in rows if (why := refusal(row, scenario))}
    admitted = ranked([row for row in rows if row["variant"] not in refused], scenario)
    model = rows[0]["model"]
    found = {
        "scenario": scenario.name,
        "model": model,
        "size_class": rows[0]["size_class"],
        "objective": scenario.objective,
        "limits": limits,
        "accuracy": "known" if known else "open",
        "baseline": rows[0]["baseline"],
        "winner": admitted[0]["variant"] if admitted else None,
        "runner_up": admitted[1]["variant"] if len(admitted) > 1 else None,
        "margin_pct": None,
        "separated": None,
        "ties": [row["variant"] for row in admitted[1:] if not _separated(admitted[0], row, scenario)],
        "admitted": [row["variant"] for row in admitted],
        "refused": {variant: why.text for variant, why in refused.items()},
        "refused_short": refused_words(refused),
    }
    if len(admitted) > 1:
        first, second = admitted[:2]
        found["margin_pct"] = 100 * (merit(first, scenario) / merit(second, scenario) - 1)
        found["separated"] = "yes" if _separated(first, second, scenario) else "no"
    if admitted:
        found |= {name: None if math.isnan(admitted[0][name]) else admitted[0][name] for name in FIGURES}
    if admitted and "rate" in admitted[0]:
        found["rate"] = admitted[0]["rate"]
    found["speed_verdict"] = admitted[0]["speed_verdict"] if admitted else None
    found["gives"] = short(admitted[0], scenario.objective) if admitted else None
    found["speed"] = short(admitted[0], "speed") if admitted else None
    found["margin"] = margin(found)
    found["mind"] = "; ".join(warnings(admitted[0], rows, scenario)) or None if admitted else None
    found["cell"] = cell(found)
    found["text"] = sentence(found, admitted, scenario)
    return found


def ranked(rows: Sequence[Mapping], scenario: Scenario) -> list[Mapping]:
    """Rows, the best first; merits that are level are told apart by speed, then by memory.

    Where speed is asked for, what is as fast as the first, as far as can be told and within stats.TIE, and surely more
    accurate, goes before it: a lead that the noise may have made is not worth an accuracy that is lost for certain.
    """
    left = sorted(rows, key=lambda row: -merit(row, scenario))
    found: list[Mapping] = []
    while left:
        best = merit(left[0], scenario)
        same = [row for row in left if merit(row, scenario) > best * (1 - LEVEL)]
        found += sorted(same, key=lambda row: (-row["speedup"], row["memory_mb"]))
        left = left[len(same) :]
    if scenario.objective in ("speed", "throughput"):
        for row in found[1:]:
            near = merit(row, scenario) * (1 + stats.TIE) >= merit(found[0], scenario)
            if near and not _separated(found[0], row, scenario) and row["delta_nll_high"] < found[0]["delta_nll_low"]:
                return [row, *(other for other in found if other is not row)]
    return found


def _separated(first: Mapping, second: Mapping, scenario: Scenario) -> bool:
    """Whether the first is better at 95%; memory is counted, so any difference is one.

    Each cell is paired with a baseline of its own minutes, so two of them are independent. Accuracy is of one text for
    both: intervals that lie apart are asked for.
    """
    if scenario.objective == "memory":
        return used_mb(first, scenario.memory) < used_mb(second, scenario.memory)
    if scenario.objective == "quality":
        return first["delta_nll_high"] < second["delta_nll_low"]
    return stats.independent_ratio(*(_merit_interval(row, scenario) for row in (first, second))).low > 1


def _merit_interval(row: Mapping, scenario: Scenario) -> Interval:
    """The merit of speed, or of all three, with the scatter of its factors added in quadrature."""
    value = merit(row, scenario)
    scored = scenario.objective == "balanced" and not math.isnan(row["delta_nll"])

    def away(speed: str, loss: str) -> float:
        lost = row[f"delta_nll_{loss}"] - row["delta_nll"] if scored else 0.0
        return math.hypot(math.log(row[f"speedup_{speed}"] / row["speedup"]), lost)

    low, high = value * math.exp(-away("low", "high")), value * math.exp(away("high", "low"))
    return Interval(value, low, high, 0, "of a merit")


def margin(found: Mapping) -> str | None:
    """The margin over the runner-up in words; what the intervals do not tell apart is said to be noise."""
    if found["margin_pct"] is None:
        return None
    if level(found):
        return "a tie, told apart by speed" if found["objective"] != "speed" else "a tie"
    if found["margin_pct"] < 0:
        return f"{found['margin_pct']:.1f}%, within the noise; more accurate"
    return f"{found['margin_pct']:.1f}%" + ("" if found["separated"] == "yes" else ", within the noise")


def level(found: Mapping) -> bool:
    """Whether the runner-up reaches the same figure."""
    return found["margin_pct"] is not None and abs(found["margin_pct"]) < 100 * LEVEL


def rival(found: Mapping) -> str:
    """Whom the noise does not tell from the best, as an addition to a cell's figures."""
    hidden = found["ties"] and not level(found)
    return f"; not told apart from {' and '.join(found['ties'])}" if hidden else ""


def cell(found: Mapping) -> str:
    """The chosen cell with its one figure, and the runner-up where noise hides which of them is better."""
    if found["winner"] is None:
        return f"{found['model']}: no admissible variant"
    return f"{found['model']}/{found['winner']} ({found['gives']}{rival(found)})"


def warnings(best: Mapping, rows: Sequence[Mapping], scenario: Scenario) -> list[str]:
    """What a scenario's limits and objective do not look at, and who deploys its answer should know.

    best: the answer. rows: all of its model.
    """
    found = []
    peak, limit = used_mb(best, "peak") / 1e3, scenario.max_memory_gb
    baseline = next((used_mb(row, "peak") / 1e3 for row in rows if row["variant"] == row["baseline"]), math.nan)
    if scenario.memory == "weights" and limit is not None and peak > limit:
        found.append(f"the whole process peaked at {peak:.2f} GB: libraries and loading count where the limit does")
    elif scenario.memory == "weights" and scenario.objective == "memory" and peak > baseline:
        found.append(f"the whole process peaked at {peak:.2f} GB, the baseline's at {baseline:.2f}")
    if (
        scenario.objective in ("speed", "balanced")
        and scenario.max_ttft_ms is None
        and best.get("ttft_ratio_low", math.nan) > 1
    ):
        found.append(f"its first token takes {best['ttft_ratio']:.2g}× the baseline's time")
    if math.isnan(best["delta_nll"]):
        found.append("its accuracy is open: no text was scored")
    asked = scenario.max_degradation_pct is not None or scenario.undetectable or scenario.objective == "quality"
    if not asked and best["quality_verdict"] == "worse":
        found.append(f"its perplexity is worse by {number(best['degradation_pct'])}%, and no limit was set on that")
    return found


def sentence(found: Mapping, admitted: Sequence[Mapping], scenario: Scenario) -> str:
    """The answer in full, for the terminal: the report has these figures in its tables."""
    if not admitted:
        return f"{found['model']}: no admissible variant (limits: {found['limits']})."
    best = admitted[0]
    text = f"{cite(best)}: {figures(best)}."
    if found["runner_up"]:
        text += f" Against {cite(admitted[1])}: {found['margin']}."
    return text + (f" Mind that {found['mind']}." if found["mind"] else "")
