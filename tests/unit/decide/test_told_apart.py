"""Which of two cells goes before the other, and what is said where the interval does not tell them apart."""

import math

import numpy as np

from tests.unit.decide.test_pareto import cell
from workflow.tradeoff.decide import phrases, scenarios
from workflow.tradeoff.decide.asked import Scenario


def test_margin_within_the_noise_is_said(rows):
    own = [row for row in rows if row["model"] == "tiny-a" and row["variant"] in ("torch-fp32", "torch-bf16")]
    found = scenarios.answer(own, Scenario("s", "speed"))
    assert found["separated"] == "no" and "within the noise" in found["text"]


def test_a_level_merit_is_told_apart_by_speed():
    rows = [cell("a", 1.0, 500, 0.0, width=0), cell("b", 2.0, 600, 9e-8, width=0)]
    assert [row["variant"] for row in scenarios.ranked(rows, Scenario("s", "quality"))] == ["b", "a"]


def test_a_lead_within_the_noise_is_not_worth_an_accuracy_that_is_surely_lost(rows):
    first = {**rows[1], "variant": "gguf-q4_k_m", "speed_verdict": "faster", "status": "ok", "quality_verdict": "worse"}
    first |= {"speedup": 8.15, "speedup_low": 7.3, "speedup_high": 9.1}
    first |= {"delta_nll": 0.066, "delta_nll_low": 0.052, "delta_nll_high": 0.08}
    second = {**first, "variant": "gguf-source", "speedup": 8.04, "speedup_low": 6.8, "speedup_high": 9.5}
    second |= {"delta_nll": 0.004, "delta_nll_low": 0.002, "delta_nll_high": 0.006}

    def best(**changes):
        return scenarios.answer([first, {**second, **changes}], Scenario("s", "speed"))

    found = best()
    assert found["winner"] == "gguf-source" and found["ties"] == ["gguf-q4_k_m"]
    assert found["margin"] == "-1.3%, within the noise; more accurate"
    # further off than 10%, or not surely more accurate, or told apart: the faster one
    others = [{"speedup": 7.0}, {"delta_nll_high": 0.06}, {"delta_nll_high": math.nan}]
    assert {best(**changes)["winner"] for changes in others} == {"gguf-q4_k_m"}
    first |= {"speedup_low": 8.1, "speedup_high": 8.2}
    assert best(speedup=7.6, speedup_low=7.5, speedup_high=7.7)["winner"] == "gguf-q4_k_m"


def test_two_cells_are_told_apart_by_their_ratio_and_not_by_whether_their_intervals_touch(rows):
    """By an oracle: both log speeds normal, with the scatter that their 95% intervals have."""
    draw = np.random.default_rng(0)
    first = {**rows[1], "variant": "gguf-q4_k_m", "speed_verdict": "faster", "status": "ok", "delta_nll": math.nan}
    first |= {"speedup": 7.88, "speedup_low": 7.24, "speedup_high": 8.58}
    second = {**first, "variant": "gguf-source", "speedup": 6.98, "speedup_low": 6.48, "speedup_high": 7.52}
    for value, told in ((6.98, "yes"), (7.2, "no")):
        other = {**second, **{f"speedup{end}": second[f"speedup{end}"] * value / 6.98 for end in ("", "_low", "_high")}}
        scatter = [math.log(row["speedup_high"] / row["speedup_low"]) / 2 / 1.96 for row in (first, other)]
        logs = [
            draw.normal(math.log(row["speedup"]), sd, 100_000) for row, sd in zip((first, other), scatter, strict=True)
        ]
        assert (np.quantile(logs[0] - logs[1], 0.025) > 0) == (told == "yes")
        assert scenarios.answer([first, other], Scenario("s", "speed"))["separated"] == told
    blind = {**second, "speedup_low": math.nan, "speedup_high": math.nan}
    assert scenarios.answer([first, blind], Scenario("s", "speed"))["separated"] == "no"


def test_noise_and_ties_are_in_the_short_form(rows):
    own = [row for row in rows if row["model"] == "tiny-a" and row["variant"] in ("torch-fp32", "torch-bf16")]
    found = scenarios.answer(own, Scenario("s", "speed"))
    assert "not told apart from" in found["cell"] and found["margin"].endswith("within the noise")
    twin = {**own[0], "variant": "torch-bf16", "speed_verdict": "tie"}
    found = scenarios.answer([own[0], twin], Scenario("s", "memory"))
    assert found["margin"] == "a tie, told apart by speed" and "noise" not in found["cell"]
    assert phrases.short(twin, "speed") == "1× tie" and phrases.short(own[0], "speed") == "the baseline"
    assert phrases.short({**twin, "speed_verdict": "undecided"}, "speed") == "1× undecided"
    assert phrases.short(own[0], "balanced").startswith("the baseline, ")
    assert phrases.short(own[1], "quality").startswith("perplexity +")
