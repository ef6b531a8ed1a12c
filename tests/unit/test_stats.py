"""Intervals against slow oracles, and the share of simulated studies in which they hold the truth."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from workflow.tradeoff import precision, stats


def study(rng, replicates, samples=9, truth=10.0, between=0.02, within=0.03):
    """Samples of fresh processes: each process has a level of its own, and its samples scatter around it."""
    levels = truth * np.exp(rng.normal(0, between, replicates))
    return [level * np.exp(rng.normal(0, within, samples)) for level in levels]


def covered(make, truth, times=400):
    rng = np.random.default_rng(0)
    intervals = [make(rng) for _ in range(times)]
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


@pytest.mark.parametrize("replicates", [2, 3, 4, 7])
def test_few_replicates_cover_as_promised(replicates):
    assert covered(lambda rng: stats.median_interval(study(rng, replicates)), 10.0) > 0.92


def test_a_bootstrap_over_two_replicates_would_not_cover():
    def naive(rng):
        values = [np.median(samples) for samples in study(rng, 2)]
        return stats.Interval(0, min(values), max(values), 2, "")  # the widest that any bootstrap can be

    assert covered(naive, 10.0) < 0.7


def test_many_replicates_cover_about_as_promised():
    assert covered(lambda rng: stats.median_interval(study(rng, 15)), 10.0, times=150) > 0.88


# (pairs of processes at first, at most, turns of each): what the config's default and its limits come to
PLANS = [(6, 6, 2), (6, 8, 2), (6, 20, 2), (4, 12, 2), (3, 3, 2), (3, 8, 1), (6, 12, 4)]
# standard deviations of a log ratio (between pairs of processes, between their turns), about the precision asked for
SCATTER = [(0.01, 0.01), (0.03, 0.03), (0.06, 0.03), (0.02, 0.1), (0.0, 0.05)]


def stopped(medians, first, half_width, precision=0.05):
    """Error and half-width of each row of medians (studies, most) at the number of pairs where it stopped."""
    most = medians.shape[1]
    half, error = (np.full(len(medians), np.nan) for _ in range(2))
    for count in range(first, most + 1):
        found = half_width(medians[:, :count])
        now = np.isnan(half) & ((found <= precision) | (count == most))
        half[now], error[now] = found[now], medians[now, :count].mean(axis=1)
    return np.abs(error), half


def simulated(first, most, turns, scatter, half_width, studies=20_000):
    """Share of simulated studies whose interval holds the truth."""
    rng = np.random.default_rng(0)
    between = rng.normal(0, scatter[0], (studies, most, 1))
    medians = np.median(between + rng.normal(0, scatter[1], (studies, most, turns)), axis=2)
    error, half = stopped(medians, first, half_width)
    return np.mean(error <= half)


@pytest.mark.parametrize("scatter", SCATTER)
@pytest.mark.parametrize("plan", PLANS)
def test_the_speedup_covers_as_promised_whenever_it_stops(plan, scatter):
    covers = simulated(*plan, scatter, lambda medians: precision.half_width(medians, plan[0]))
    assert covers == pytest.approx(0.95, abs=0.015)


def test_a_plain_interval_would_not_when_its_own_width_stops_it():
    plan = (3, 8, 2)
    covers = simulated(*plan, (0.06, 0.03), lambda medians: precision.half_width(medians, medians.shape[-1]))
    assert covers < 0.93


def test_turns_of_one_pair_of_processes_would_not_cover():
    def naive(rng):
        logs = rng.normal(0, 0.03) + rng.normal(0, 0.03, 12)
        half = precision.half_width(logs, 12)
        return stats.Interval(0, logs.mean() - half, logs.mean() + half, 12, "")

    assert covered(naive, 0.0) < 0.8


def test_few_replicates_against_scipy():
    replicates = [[9.0, 10.0, 11.0], [12.0, 12.0], [10.5]]
    logs = np.log([10.0, 12.0, 10.5])
    low, high = scipy_stats.t.interval(0.95, 2, loc=logs.mean(), scale=scipy_stats.sem(logs))
    found = stats.median_interval(replicates)
    np.testing.assert_allclose([found.value, found.low, found.high], [10.5, math.exp(low), math.exp(high)])
    assert found.n == 3 and found.method.startswith("t ")


def test_a_ratio_against_scipy():
    pairs = [[0.7, 0.72, 0.9], [0.6], [0.65, 0.75], [0.5, 0.7]]
    logs = np.array([0.72, 0.6, 0.7, 0.6])
    for first in (4, 9):
        found = stats.paired_ratio(pairs, first)
        low, high = scipy_stats.t.interval(0.95, 3, loc=logs.mean(), scale=scipy_stats.sem(logs))
        np.testing.assert_allclose([found.value, found.low, found.high], np.exp([logs.mean(), low, high]))
    assert found.n == 4


def test_the_width_is_that_of_the_first_pairs_or_of_all_whichever_is_wider():
    calm, wild = np.array([0.1, 0.11, 0.1]), np.array([0.1, 0.3, -0.1])
    scale = scipy_stats.t.ppf(0.975, 2) / math.sqrt(6)
    found = precision.half_width(np.concatenate([wild, calm]), 3)
    assert found == pytest.approx(scale * wild.std(ddof=1))
    every = np.concatenate([calm, wild])
    assert precision.half_width(every, 3) == pytest.approx(scipy_stats.t.ppf(0.975, 5) * scipy_stats.sem(every))


def test_one_disturbed_turn_moves_a_ratio_little():
    pairs = [[0.70, 0.71, 0.72], [0.69, 0.70, 0.71], [0.70, 0.70, 0.71], [0.71, 0.71, 0.72]]
    spoiled = [[0.70, 0.71, 3.0], *pairs[1:]]
    assert stats.paired_ratio(spoiled, 4) == stats.paired_ratio(pairs, 4)


def test_one_replicate_says_what_it_is():
    samples = np.random.default_rng(0).normal(10, 0.5, 30)
    alone = stats.median_interval([samples])
    assert alone.low < alone.value < alone.high and "one process" in alone.method


def test_one_figure_has_no_interval():
    for interval in (stats.median_interval([10.0]), stats.paired_ratio([[math.log(2)]], 4)):
        assert math.isnan(interval.low) and math.isnan(interval.high)
    assert stats.paired_ratio([[math.log(2)]], 4).value == pytest.approx(2)
    assert stats.speed_verdict(math.nan, math.nan) == "undecided"
    assert stats.quality_verdict(math.nan, math.nan) == "no detectable change"


def test_replicates_may_be_single_figures():
    assert stats.median_interval([10.0, 11.0, 12.0]) == stats.median_interval([[10.0], [11.0], [12.0]])


def test_equal_seeds_give_equal_intervals():
    rng = np.random.default_rng(5)
    replicates = study(rng, 12)
    assert stats.median_interval(replicates, seed=1) == stats.median_interval(replicates, seed=1)


@pytest.mark.parametrize("replicates", [[], [[]], [[1.0], []], [[0.0]], [[-1.0, 2.0]], [[math.nan]]])
def test_no_statistic_without_positive_samples(replicates):
    with pytest.raises(ValueError, match="positive"):
        stats.median_interval(replicates)


@pytest.mark.parametrize("pairs", [[], [[]], [[0.1], []]])
def test_no_ratio_without_turns(pairs):
    with pytest.raises(ValueError, match="needs a turn"):
        stats.paired_ratio(pairs, 4)


def blocks(rng, count, delta=0.05, between=0.05, tokens=60):
    """NLL of a baseline and a cell: the change differs from block to block, and blocks in their length."""
    sizes = rng.integers(tokens // 2, tokens * 2, count)
    block = np.repeat(np.arange(count), sizes)
    base = rng.exponential(3.0, len(block))
    change = delta + rng.normal(0, between, count)[block] + rng.normal(0, 0.3, len(block))
    return base + change, base, block


@pytest.mark.parametrize("count", [3, 8, 40])
def test_the_change_in_nll_is_covered(count):
    assert covered(lambda rng: stats.paired_delta(*blocks(rng, count)), 0.05, times=300) > 0.91


def test_tokens_taken_as_independent_would_not_cover():
    def naive(rng):
        cell, base, _ = blocks(rng, 40)
        half = 1.96 * (cell - base).std() / math.sqrt(len(cell))
        delta = (cell - base).mean()
        return stats.Interval(delta, delta - half, delta + half, len(cell), "")

    assert covered(naive, 0.05) < 0.85


def test_block_bootstrap_against_a_plain_loop():
    rng = np.random.default_rng(6)
    cell, base, block = blocks(rng, 30)
    found = stats.paired_delta(cell, base, block, seed=1)
    loop, means = np.random.default_rng(7), []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(block == index) for index in loop.integers(30, size=30)])
        means.append((cell[chosen] - base[chosen]).mean())
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.025, 0.975]), atol=0.003)
    np.testing.assert_allclose(found.value, cell.mean() - base.mean())


def test_pairing_finds_what_two_perplexities_hide():
    rng = np.random.default_rng(8)
    cell, base, block = blocks(rng, 40, delta=0.02, between=0.01)
    found = stats.paired_delta(cell, base, block)
    assert stats.quality_verdict(found.low, found.high) == "worse"
    assert stats.quality_verdict(-found.high, -found.low) == "better"
    same = stats.paired_delta(base, base, block)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert stats.quality_verdict(same.low, same.high) == "no detectable change"
    assert base.std() / len(base) ** 0.5 > 0.02  # the error of either mean alone is larger than the change


def test_one_block_has_no_interval():
    found = stats.paired_delta(np.array([2.0, 3.0]), np.array([1.0, 2.0]), np.zeros(2))
    assert found.value == 1 and math.isnan(found.low)


def test_delta_needs_pairs():
    with pytest.raises(ValueError, match="not paired"):
        stats.paired_delta(np.ones(3), np.ones(2), np.ones(3))


def test_degradation_is_the_change_of_perplexity():
    change = stats.degradation_percent(stats.Interval(0.1, 0.05, 0.15, 9, "m"))
    np.testing.assert_allclose(
        [change.value, change.low, change.high], [100 * (math.exp(x) - 1) for x in (0.1, 0.05, 0.15)]
    )


def test_verdicts():
    assert stats.speed_verdict(1.01, 1.3) == "faster"
    assert stats.speed_verdict(0.7, 0.99) == "slower"
    assert stats.speed_verdict(0.92, 1.09) == stats.speed_verdict(1 / 1.1, 1.1) == "tie"
    # what was once called a tie, of a variant 2.5 times as fast
    assert stats.speed_verdict(0.85, 3.15) == stats.speed_verdict(0.7, 1.0) == "undecided"


def test_noise_is_half_the_width_over_the_value():
    assert stats.Interval(10, 9, 12, 3, "").relative_width == pytest.approx(0.15)


def test_mean_and_standard_deviation_of_the_study():
    assert stats.mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert stats.mean_std([4.0]) == (4.0, 0.0)


def test_statistics_start_without_torch():
    code = "import sys, workflow.tradeoff.stats; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
