"""The front: who is dominated, and where the intervals do not say so."""

import math

from workflow.tradeoff.decide import pareto


def cell(variant, speed, memory, delta, width=0.02):
    return {
        "model": "m", "variant": variant, "memory_mb": memory, "speedup": speed, "speedup_low": speed * (1 - width),
        "speedup_high": speed * (1 + width), "delta_nll": delta, "delta_nll_low": delta - width / 10,
        "delta_nll_high": delta + width / 10,
    }  # fmt: skip


def test_dominated_only_where_the_intervals_say_so():
    good, bad, close = cell("good", 2.0, 100, 0.0), cell("bad", 1.0, 200, 0.1), cell("close", 1.99, 100, 0.0)
    found = {line["variant"]: line for line in pareto.front([good, bad, close])}
    assert found["bad"]["on_front"] == "no" and found["bad"]["dominated_by"] == "good, close"
    assert found["close"]["on_front"] == "yes" and found["good"]["on_front"] == "yes"


def test_what_noise_hides_is_named():
    # as fast, as exact, but half the size: only the memory is told apart
    large, small = cell("large", 1.0, 200, 0.0), cell("small", 1.001, 100, 0.0)
    found = {line["variant"]: line for line in pareto.front([large, small])}
    assert found["large"]["on_front"] == "yes" and found["large"]["beaten_but_for_noise_by"] == "small"


def test_without_an_interval_nothing_is_dominated():
    good, bad = cell("good", 2.0, 100, 0.0), cell("bad", 1.0, 200, 0.1)
    bad |= {"speedup_low": math.nan, "speedup_high": math.nan}
    assert [line["on_front"] for line in pareto.front([good, bad])] == ["yes", "yes"]


def test_random_weights_have_a_front_of_two_criteria():
    rows = [cell("a", 2.0, 100, math.nan), cell("b", 1.0, 200, math.nan)]
    assert [line["on_front"] for line in pareto.front(rows)] == ["yes", "no"]
