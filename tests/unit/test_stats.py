"""Intervals against slow oracles, and the share of simulated studies in which they hold the truth."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from workflow.tradeoff import stats


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


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_the_paired_ratio_covers_under_drift(pairs):
    def simulated(rng):
        # the machine slows by a fifth over the study, and both of a pair feel it
        drift = np.linspace(1, 0.8, pairs)
        cell = [drift[i] * samples for i, samples in enumerate(study(rng, pairs, truth=15.0))]
        base = [drift[i] * samples for i, samples in enumerate(study(rng, pairs, truth=10.0))]
        return stats.paired_ratio(cell, base)

    assert covered(simulated, 1.5, times=200) > 0.91


def test_pairing_removes_drift():
    rng = np.random.default_rng(1)
    drift = [1, 0.9, 0.8, 0.7, 0.6]
    cell = [15 * d * samples for d, samples in zip(drift, study(rng, 5, truth=1.0), strict=True)]
    base = [10 * d * samples for d, samples in zip(drift, study(rng, 5, truth=1.0), strict=True)]
    paired = stats.paired_ratio(cell, base)
    assert stats.speed_verdict(paired.low, paired.high) == "faster"
    # the same figures taken apart would not tell
    assert stats.median_interval(cell).low < stats.median_interval(base).high


def test_few_replicates_against_scipy():
    replicates = [[9.0, 10.0, 11.0], [12.0, 12.0], [10.5]]
    logs = np.log([10.0, 12.0, 10.5])
    low, high = scipy_stats.t.interval(0.95, 2, loc=logs.mean(), scale=scipy_stats.sem(logs))
    found = stats.median_interval(replicates)
    np.testing.assert_allclose([found.value, found.low, found.high], [10.5, math.exp(low), math.exp(high)])
    assert found.n == 3 and found.method.startswith("t ")


def test_ratio_of_few_pairs_against_scipy():
    cell, base = [[20.0, 22.0], [21.0], [19.0]], [[10.0], [11.0], [9.0]]
    logs = np.log([2.1, 21 / 11, 19 / 9])
    low, high = scipy_stats.t.interval(0.95, 2, loc=logs.mean(), scale=scipy_stats.sem(logs))
    found = stats.paired_ratio(cell, base)
    np.testing.assert_allclose([found.value, found.low, found.high], np.exp([logs.mean(), low, high]))


def test_hierarchical_bootstrap_against_a_plain_loop():
    rng = np.random.default_rng(2)
    cell, base = study(rng, 9, truth=15.0), study(rng, 9, truth=10.0)
    found = stats.paired_ratio(cell, base, seed=3)
    loop, values = np.random.default_rng(4), []
    for _ in range(1500):
        logs = []
        for pair in loop.integers(9, size=9):
            a, b = (np.median(loop.choice(samples[pair], len(samples[pair]))) for samples in (cell, base))
            logs.append(math.log(a / b))
        values.append(math.exp(np.mean(logs)))
    low, high = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=0.006)


def test_one_replicate_says_what_it_is():
    samples = np.random.default_rng(0).normal(10, 0.5, 30)
    alone = stats.median_interval([samples])
    assert alone.low < alone.value < alone.high and "one process" in alone.method
    pair = stats.paired_ratio([samples], [samples * 2])
    assert pair.low < 0.5 < pair.high and "one pair" in pair.method


def test_one_figure_has_no_interval():
    for interval in (stats.median_interval([10.0]), stats.paired_ratio([10.0], [5.0])):
        assert math.isnan(interval.low) and math.isnan(interval.high)
    assert stats.paired_ratio([10.0], [5.0]).value == 2
    assert stats.speed_verdict(math.nan, math.nan) == "tie"
    assert stats.quality_verdict(math.nan, math.nan) == "no detectable change"


def test_replicates_may_be_single_figures():
    assert stats.median_interval([10.0, 11.0, 12.0]) == stats.median_interval([[10.0], [11.0], [12.0]])


def test_equal_seeds_give_equal_intervals():
    rng = np.random.default_rng(5)
    replicates = study(rng, 12)
    assert stats.median_interval(replicates, seed=1) == stats.median_interval(replicates, seed=1)
    ratios = [stats.paired_ratio(replicates, study(np.random.default_rng(6), 12), seed=seed) for seed in (1, 1, 2)]
    assert ratios[0] == ratios[1] != ratios[2]


@pytest.mark.parametrize("replicates", [[], [[]], [[1.0], []], [[0.0]], [[-1.0, 2.0]], [[math.nan]]])
def test_no_statistic_without_positive_samples(replicates):
    with pytest.raises(ValueError, match="positive"):
        stats.median_interval(replicates)


def test_unequal_replicates_are_no_pairs():
    with pytest.raises(ValueError, match="equal numbers"):
        stats.paired_ratio([[1.0]], [[1.0], [2.0]])


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
    assert stats.speed_verdict(0.9, 1.1) == stats.speed_verdict(1.0, 1.2) == "tie"


def test_noise_is_half_the_width_over_the_value():
    assert stats.Interval(10, 9, 12, 3, "").relative_width == pytest.approx(0.15)


def test_mean_and_standard_deviation_of_the_study():
    assert stats.mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert stats.mean_std([4.0]) == (4.0, 0.0)


def test_statistics_start_without_torch():
    code = "import sys, workflow.tradeoff.stats; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
