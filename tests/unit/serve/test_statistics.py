"""Percentiles, goodput, saturation and one server against another, of made-up requests."""

import numpy as np
import pytest

from workflow.tradeoff.serve import statistics, tables


def fact(arrival, ttft=0.1, gaps=(0.02, 0.02), error=None, **more):
    latency = ttft + sum(gaps)
    told = {
        "arrival_s": arrival,
        "ttft_s": ttft,
        "itl_s": list(gaps),
        "latency_s": latency,
        "tokens": 3,
        "error": error,
    }
    return told | {"prompt_tokens": 9} | more


def failed(arrival):
    return fact(arrival, error="refused") | {"ttft_s": None, "itl_s": [], "tokens": None}


def queue(rate, count=20, serves_s=0.5):
    """Requests at even distances that one server answers one after the other."""
    free, found = 0.0, []
    for number in range(count):
        arrival = number / rate
        free = max(free, arrival) + serves_s
        found.append(fact(arrival, ttft=free - arrival - 0.04))
    return found


def test_percentiles_are_those_of_all_gaps_and_failures_have_none():
    told = statistics.figures([fact(0), fact(1, ttft=0.3, gaps=(0.02, 0.12)), failed(2)], {})
    assert told["ttft_p50_ms"] == pytest.approx(200) and told["itl_p99_ms"] == pytest.approx(120, rel=0.03)
    assert (told["requests"], told["errors"]) == (3, 1)
    assert told["good_pct"] == pytest.approx(200 / 3) and told["offered_per_s"] == pytest.approx(1)


def test_goodput_counts_what_is_within_the_limits_of_the_scenario():
    facts = [fact(0), fact(1, ttft=0.3), fact(2, gaps=(0.2, 0.2)), failed(3)]
    assert statistics.figures(facts, {})["good_pct"] == 75
    assert statistics.figures(facts, {"max_ttft_ms": 200})["good_pct"] == 50
    assert statistics.figures(facts, {"max_ttft_ms": 200, "max_itl_ms": 100})["good_pct"] == 25


def test_nothing_that_arrived_has_no_figures():
    told = statistics.figures([], {})
    assert told["requests"] == 0 and told["ttft_p50_ms"] is None and told["answered_per_s"] is None


def test_a_server_that_answers_two_a_second_saturates_above_it():
    rates = [{"rate": rate, "facts": queue(rate)} for rate in (0.5, 1.5, 2.5, 4)]
    told = statistics.saturation(rates)
    assert told["saturates_at"] == 2.5 and told["most_per_s"] == pytest.approx(2, rel=0.1)
    assert statistics.saturation(rates[:2])["saturates_at"] is None
    broken = [{"rate": 1, "facts": [failed(0), failed(1)]}]
    assert statistics.saturation(broken) == {"saturates_at": 1, "most_per_s": None}


def test_one_server_against_another_has_an_interval_that_holds_the_truth():
    draw = np.random.default_rng(0)
    slow = [fact(number, ttft=value) for number, value in enumerate(draw.lognormal(-2, 0.3, 40))]
    fast = [fact(one["arrival_s"], ttft=one["ttft_s"] / 2 * draw.lognormal(0, 0.1)) for one in slow]
    told = statistics.versus(fast, slow, "ttft_s")
    assert told["low"] < 0.5 < told["high"] and told["verdict"] == "lower" and told["pairs"] == 40
    assert statistics.versus(slow, slow, "ttft_s")["verdict"] == "tie"
    assert statistics.versus(slow[:7], fast[:7], "ttft_s") is None


def test_the_tables_say_where_a_server_saturates_and_whether_it_writes_what_was_measured():
    answers = [{"prompt": "Hello?", "same": True, "error": None}, {"prompt": "Why?", "same": False, "error": None}]
    rates = [{"rate": rate, "facts": queue(rate)} for rate in (0.5, 4)]
    one = {"name": "fast", "greedy": answers, "rates": rates}
    made = {"limits": {}, "servers": [one, {**one, "name": "slow", "greedy": answers[:1]}]}
    said = "\n".join(tables.sentences(made))
    assert "fast no longer keeps up at 4 requests a second" in said and "slow: 1 of 1 greedy answers are those" in said
    assert "fast: 1 of 2 greedy answers" in said and "to 'Why?' it wrote otherwise" in said
    assert [(row["server"], row["rate_per_s"]) for row in tables.rows(made)][:2] == [("fast", 0.5), ("fast", 4)]
    assert {row["verdict"] for row in tables.against(made)} == {"tie"}
    assert tables.against({"servers": [one]}) == []
