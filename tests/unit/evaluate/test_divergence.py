"""Compact log-probabilities and the divergence from them, against float64 over uncoded distributions."""

import numpy as np
import pytest
import torch

from workflow.tradeoff.evaluate import divergence


def logits(rows=40, vocab=3000, scale=3.0, seed=0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def oracle(base, cell, targets):
    """Per token KL and change of the target's probability, one token and one entry at a time, in float64."""
    p, q = torch.softmax(base, -1).numpy(), torch.softmax(cell, -1).numpy()
    kl = [sum(a * (np.log(a) - np.log(b)) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    dp = [q[row, target] - p[row, target] for row, target in enumerate(targets)]
    return np.array(kl), np.array(dp)


def logp(values):
    return torch.log_softmax(values.float(), dim=-1)


def recorded(base, targets):
    recorder = divergence.Recorder(len(base))
    recorder(torch.arange(len(base)), logp(base), targets)
    return recorder.arrays("windows-8")


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
def test_kl_from_compact_log_probs_is_the_float64_one_within_the_stated_bound(scale, noise):
    base = logits(12, 600, scale)
    cell = base + noise * logits(12, 600, 1.0, seed=1)
    targets = torch.arange(12)
    comparison = divergence.Comparison(recorded(base, targets))
    comparison(torch.arange(12), logp(cell), targets)
    kl, dp = oracle(base, cell, targets)
    rounding = 3e-6  # of float32 sums over the vocabulary
    assert (np.abs(comparison.kl - kl) <= comparison.bound + rounding).all()
    np.testing.assert_allclose(comparison.dp, dp, atol=2e-4)
    assert comparison.bound.max() < 1e-3


def test_the_coding_keeps_likely_tokens_finest():
    truth = logp(logits(50, 5000, 4.0))
    codes, ranges, chi2 = divergence.encode(truth)
    assert codes.min() >= 0 and codes.max() <= divergence.LEVELS
    error = (divergence.decode(codes, ranges) - truth).abs()
    assert error.max() < 1e-3
    assert (truth.exp() * error).sum(1).max() < 3e-4
    assert torch.allclose(divergence.decode(codes, ranges).exp().sum(1), torch.ones(50), atol=1e-5)
    exact = truth.double()
    decoded = divergence.decode(codes, ranges).double()
    square = (exact.exp() * (torch.exp(decoded - exact) - 1) ** 2).sum(1)
    np.testing.assert_allclose(chi2.numpy(), square.numpy(), rtol=0.02, atol=1e-12)


def test_impossible_tokens_and_certain_ones():
    base = torch.tensor([[0.0, float("-inf"), -3.0], [90.0, 0.0, -90.0]])
    targets = torch.tensor([0, 0])
    comparison = divergence.Comparison(recorded(base, targets))
    comparison(torch.arange(2), logp(base), targets)
    assert np.isfinite(comparison.kl).all() and comparison.kl.max() < 1e-6
    comparison(torch.arange(2), logp(torch.tensor([[float("-inf"), 0.0, 0.0], [0.0, 0.0, 0.0]])), targets)
    assert np.isfinite(comparison.kl).all() and comparison.kl.min() > 1


def test_visits_in_any_order_fill_the_same_places():
    base, targets = logits(10, 50), torch.arange(10)
    whole = recorded(base, targets)
    recorder = divergence.Recorder(10)
    for part in (torch.tensor([7, 8, 9]), torch.tensor([2, 0, 1]), torch.tensor([3, 6, 4, 5])):
        recorder(part, logp(base)[part], targets[part])
    for name, array in recorder.arrays("windows-8").items():
        np.testing.assert_array_equal(array, whole[name])
    assert whole["codes"].dtype == np.uint16  # two bytes an entry
    assert divergence.Recorder(4).arrays("windows-8") == {}


def test_same_top_counts_ties_of_the_coding_as_the_baseline_saw_them():
    base = torch.tensor([[5.0, 5.0 - 1e-6, 0.0]] * 2)
    cell = torch.tensor([[5.0, 4.0, 0.0], [4.0, 5.0, 0.0]])
    comparison = divergence.Comparison(recorded(base, torch.zeros(2, dtype=torch.int64)))
    comparison(torch.arange(2), logp(cell), torch.zeros(2, dtype=torch.int64))
    assert comparison.same_top.tolist() == [True, False]


def test_summary_against_numpy():
    rng = np.random.default_rng(0)
    kl, dp, same = rng.exponential(0.1, 4000), rng.normal(-0.01, 0.05, 4000), rng.random(4000) < 0.9
    result = divergence.summarize(kl, dp, same, np.full(4000, 1e-5))
    assert result["tokens"] == 4000 and result["kl_max"] == kl.max()
    np.testing.assert_allclose(result["kl_mean"], kl.mean())
    np.testing.assert_allclose(result["kl_sem"], kl.std(ddof=1) / 4000**0.5)
    np.testing.assert_allclose(result["kl_p90"], np.percentile(kl, 90))
    np.testing.assert_allclose(result["dp_rms"], np.sqrt((dp**2).mean()))
    np.testing.assert_allclose(result["same_top_sem"], np.sqrt(same.mean() * (1 - same.mean()) / 3999), rtol=1e-9)
    # errors of percentiles and of the root mean square: the spread over fresh draws
    draws = rng.exponential(0.1, (500, 4000))
    for percent in divergence.PERCENTILES:
        spread = np.percentile(draws, percent, axis=1).std()
        assert 0.6 < result[f"kl_p{percent}_sem"] / spread < 1.6
    spread = np.sqrt(np.square(rng.normal(-0.01, 0.05, (500, 4000))).mean(axis=1)).std()
    assert 0.8 < result["dp_rms_sem"] / spread < 1.25
    assert all(isinstance(value, float) for name, value in result.items() if name != "tokens")


def test_summary_of_one_token():
    result = divergence.summarize(np.zeros(1), np.zeros(1), np.ones(1, dtype=bool), np.zeros(1))
    assert result["kl_mean"] == result["kl_sem"] == result["dp_rms_sem"] == 0
