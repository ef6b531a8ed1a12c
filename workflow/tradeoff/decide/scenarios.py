"""Scenarios: which variant of a model meets a set of limits, and which of those is best.

A limit is held against the unfavourable end of the 95% interval, so that "at most 5%" holds at 95% confidence. What
nobody can serve is a reference and never the answer; what is slower than the baseline is one only where memory was
asked for. Of a model whose text was never scored (random weights), accuracy stays open: limits on it refuse nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from workflow.tradeoff.decide.pareto import NEGLIGIBLE
from workflow.tradeoff.decide.phrases import cite, figures, short
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import OBJECTIVES, number

LEVEL = 5e-5  # two merits whose ratio is closer to 1 are one


@dataclass(frozen=True)
class Scenario:
    """What is asked for, and its limits. memory: ``weights`` (with the cache) or ``peak`` (the whole process).

    load: name or point of the load that it is about; None is the standard one. ``load_words``: the load in words.
    """

    name: str
    objective: str = "speed"
    max_memory_gb: float | None = None
    min_tokens_per_s: float | None = None
    max_degradation_pct: float | None = None
    max_parameters: float | None = None
    min_parameters: float | None = None
    memory: str = "weights"
    undetectable: bool = False  # only variants without a detectable change of the NLL
    load: str | Mapping | None = None
    max_ttft_ms: float | None = None
    max_itl_ms: float | None = None  # of the median token
    load_words: str | None = None

    def limits(self) -> str:
        """The limits in words; ``none`` without one."""
        said = [
            (self.load_words, str(self.load_words)),
            (self.max_memory_gb, f"{self.memory_words()} ≤ {self.max_memory_gb} GB"),
            (self.min_tokens_per_s, f"≥ {self.min_tokens_per_s} tokens/s"),
            (self.max_ttft_ms, f"first token within {self.max_ttft_ms} ms"),
            (self.max_itl_ms, f"a token every {self.max_itl_ms} ms"),
            (self.max_degradation_pct, f"perplexity at most {self.max_degradation_pct}% worse"),
            (self.undetectable or None, "no detectable change of accuracy"),
        ]
        return ", ".join(text for value, text in said if value is not None) or "none"

    def asks_memory(self) -> bool:
        return self.objective == "memory" or self.max_memory_gb is not None

    def without_accuracy(self) -> "Scenario":
        """The same question where nothing is known of accuracy."""
        return replace(self, max_degradation_pct=None, undetectable=False)

    def memory_words(self) -> str:
        return "peak memory" if self.memory == "peak" else "weights and cache"


def parse(data: Mapping[str, Mapping]) -> list[Scenario]:
    """Scenarios out of {name: {objective, limits...}}; UserError names an unknown key, objective or memory."""
    known = {field.name for field in fields(Scenario)} - {"name", "load_words"}
    found = []
    for name, content in data.items():
        if not isinstance(content, Mapping):
            raise UserError(f"scenario {name} is {content!r}: give an objective and limits by name")
        if unknown := set(content) - known:
            raise UserError(
                f"scenario {name}: unknown key {', '.join(sorted(unknown))}: one of {', '.join(sorted(known))}"
            )
        for key in sorted(known - {"objective", "memory", "undetectable", "load"}):
            limit = content.get(key)
            if limit is not None and (not isinstance(limit, int | float) or not 0 <= limit < math.inf):
                raise UserError(f"scenario {name}: {key} is {limit!r}: give a number from 0 on")
        scenario = Scenario(name, **content)
        if scenario.objective not in OBJECTIVES:
            raise UserError(
                f"scenario {name}: unknown objective {scenario.objective!r}: one of {', '.join(OBJECTIVES)}"
            )
        if scenario.memory not in ("weights", "peak"):
            raise UserError(f"scenario {name}: memory is weights or peak, not {scenario.memory!r}")
        found.append(scenario)
    return found


def used_mb(row: Mapping, memory: str) -> float:
    """MB that count: weights and cache, or the higher of the peaks while loading and decoding."""
    return row["memory_mb"] if memory == "weights" else max(row["peak_mb"], row["load_peak_mb"])


@dataclass(frozen=True)
class Refusal:
    """Why a cell cannot be the answer. limit: what it fails, in the same words for each such cell; value: its own
    figure, maybe empty; text: all of it.
    """

    limit: str
    value: str
    text: str


def refusal(row: Mapping, scenario: Scenario) -> Refusal | None:
    """Why a cell cannot be the answer, or None."""
    if why := without_figures(row):
        return why
    if row.get("deployable") == "no":
        why = VARIANTS[row["variant"]].reference if row["variant"] in VARIANTS else "nobody serves it"
        return Refusal("a reference that nobody serves", "", f"a reference: {why}")
    over = _over_memory(row, scenario) or _too_slow(row, scenario) or _too_late(row, scenario)
    over = over or _degraded(row, scenario)
    if over is None and row["speed_verdict"] == "slower" and not scenario.asks_memory():
        text = f"slower than the baseline ({row['speedup']:.3g}×), and memory was not asked for"
        return Refusal("slower than the baseline", f"{row['speedup']:.3g}×", text)
    return over


def without_figures(row: Mapping) -> Refusal | None:
    """Why nothing can be said of a cell, or None."""
    if row["status"] != "ok":
        return Refusal(row["status"].replace("_", " "), "", f"{row['status']}: {row['reason']}")
    if math.isnan(row["decode_tokens_per_s"]):
        return Refusal("speed not measured", "", "its decode speed was not measured")
    if math.isnan(row["speedup"]) or math.isnan(row["memory_reduction_pct"]):
        why = row["reason"] or "its baseline has no figure"
        return Refusal("not comparable with the baseline", "", f"it cannot be compared: {why}")
    return None


def _over_memory(row: Mapping, scenario: Scenario) -> Refusal | None:
    if scenario.max_memory_gb is None:
        return None
    gigabytes = used_mb(row, scenario.memory) / 1e3
    if gigabytes <= scenario.max_memory_gb:
        return None
    words, limit = scenario.memory_words(), f"above {scenario.max_memory_gb} GB"
    return Refusal(f"{words} {limit}", f"{gigabytes:.3g} GB", f"{words} {gigabytes:.3g} GB, {limit}")


def _too_slow(row: Mapping, scenario: Scenario) -> Refusal | None:
    least = scenario.min_tokens_per_s
    if least is None or row["decode_tokens_per_s_low"] >= least:
        return None
    value, sure = number(row["decode_tokens_per_s"]), number(row["decode_tokens_per_s_low"])
    text = f"{value} tokens/s, of which only {sure} are sure: below {least}"
    return Refusal(f"below {least} tokens/s", f"{sure} sure", text)


def _too_late(row: Mapping, scenario: Scenario) -> Refusal | None:
    waits = (("first token", "ttft_ms", scenario.max_ttft_ms), ("a token", "itl_p50_ms", scenario.max_itl_ms))
    for what, name, most in waits:
        if most is None or row[f"{name}_high"] <= most:
            continue
        value, high = number(row[name]), number(row[f"{name}_high"])
        return Refusal(
            f"{what} later than {most} ms", f"{high} ms", f"{what} in {value} ms, maybe {high}: above {most}"
        )
    return None


def _degraded(row: Mapping, scenario: Scenario) -> Refusal | None:
    most, value = scenario.max_degradation_pct, row["degradation_pct"]
    if most is not None:
        high = row["degradation_high_pct"]
        if math.isnan(high):
            return Refusal("degradation not known", "", "its degradation is not known")
        if high > most + 100 * NEGLIGIBLE:
            text = f"degradation {value:.2f}%, maybe {high:.2f}%: above {most}%"
            return Refusal(f"degradation may exceed {most}%", f"{high:.3g}%", text)
    if scenario.undetectable and row["quality_verdict"] == "worse":
        return Refusal("worse than the baseline", f"{value:+.3g}%", f"worse than the baseline by {value:.2f}%")
    if scenario.undetectable and not isinstance(row["quality_verdict"], str):
        return Refusal("change of accuracy not known", "", "its change of accuracy is not known")
    return None


def refused_words(refused: Mapping[str, Refusal]) -> str | None:
    """Who was refused, under what each fails: ``out of memory: a, b; degradation may exceed 5%: c (9.4%)``."""
    groups: dict[str, list[str]] = {}
    for variant, why in refused.items():
        groups.setdefault(why.limit, []).append(variant + (f" ({why.value})" if why.value else ""))
    return "; ".join(f"{limit}: {', '.join(names)}" for limit, names in groups.items()) or None


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
        "admitted": [row["variant"] for row in admitted],
        "refused": {variant: why.text for variant, why in refused.items()},
        "refused_short": refused_words(refused),
    }
    if len(admitted) > 1:
        first, second = admitted[:2]
        found["margin_pct"] = 100 * (merit(first, scenario) / merit(second, scenario) - 1)
        found["separated"] = "yes" if _separated(first, second, scenario) else "no"
    if admitted:
        names = ("decode_tokens_per_s", "speedup", "memory_mb", "peak_mb", "load_peak_mb", "degradation_pct")
        found |= {name: None if math.isnan(admitted[0][name]) else admitted[0][name] for name in names}
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
    """Rows, the best first; merits that are level are told apart by speed, then by memory."""
    left = sorted(rows, key=lambda row: -merit(row, scenario))
    found: list[Mapping] = []
    while left:
        best = merit(left[0], scenario)
        same = [row for row in left if merit(row, scenario) > best * (1 - LEVEL)]
        found += sorted(same, key=lambda row: (-row["speedup"], row["memory_mb"]))
        left = left[len(same) :]
    return found


def _separated(first: Mapping, second: Mapping, scenario: Scenario) -> bool:
    """Whether the intervals of what is compared lie apart; memory is counted, so any difference is one."""
    if scenario.objective == "memory":
        return used_mb(first, scenario.memory) < used_mb(second, scenario.memory)
    if scenario.objective == "quality":
        return first["delta_nll_high"] < second["delta_nll_low"]
    if scenario.objective in ("speed", "throughput"):
        return first["speedup_low"] > second["speedup_high"]
    return _merit_end(first, scenario, "low") > _merit_end(second, scenario, "high")


def _merit_end(row: Mapping, scenario: Scenario, end: str) -> float:
    """An end of the balanced merit: all factors at their worst, or all at their best."""
    other = {"low": "high", "high": "low"}[end]
    moved = {**row, "speedup": row[f"speedup_{end}"], "delta_nll": row[f"delta_nll_{other}"]}
    return merit(moved, scenario)


def margin(found: Mapping) -> str | None:
    """The margin over the runner-up in words; what the intervals do not tell apart is said to be noise."""
    if found["margin_pct"] is None:
        return None
    if level(found):
        return "a tie, told apart by speed" if found["objective"] != "speed" else "a tie"
    return f"{found['margin_pct']:.1f}%" + ("" if found["separated"] == "yes" else ", within the noise")


def level(found: Mapping) -> bool:
    """Whether the runner-up reaches the same figure."""
    return found["margin_pct"] is not None and abs(found["margin_pct"]) < 100 * LEVEL


def rival(found: Mapping) -> str:
    """The runner-up where noise hides which of the two is better, as an addition to a cell's figures."""
    hidden = found["separated"] == "no" and not level(found)
    return f"; {found['runner_up']} within the noise" if hidden else ""


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
        text += f" Ahead of {cite(admitted[1])} by {found['margin']}."
    return text + (f" Mind that {found['mind']}." if found["mind"] else "")
