"""Why a cell cannot be the answer to a scenario. A limit is held against the unfavourable end of the 95% interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.decide.pareto import NEGLIGIBLE
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import number


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
