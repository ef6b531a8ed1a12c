"""Scoring against a token-by-token loop in float64, and what a batch may hold."""

import numpy as np
import pytest

from tests import tiny
from tests.scored import NAMES, Slow, make_plan
from workflow.tradeoff import engines
from workflow.tradeoff.evaluate import scoring
from workflow.tradeoff.variants import VARIANTS


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")


def load(folder):
    return engines.load(VARIANTS["torch-fp32"], folder, folder, "cpu", 1)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_the_slow_ones(folder, name):
    plan = make_plan(folder, name, "always")
    scores = scoring.score(load(folder), plan, batch_tokens=300)
    slow = Slow(folder).nll(plan, limit=150)
    # float32 logits against float64 ones: sums of 64 products round by some 1e-6
    np.testing.assert_allclose(scores.nll[: len(slow)], slow, atol=2e-5)
    assert scores.nll.dtype == np.float32 and scores.block.dtype == scores.token.dtype == np.int32
    assert len(scores.nll) == len(scores.block) == len(scores.token) == plan.tokens
    np.testing.assert_array_equal(scores.token, np.concatenate([window.targets for window in plan.windows]))
    np.testing.assert_array_equal(np.unique(scores.block), sorted({window.block for window in plan.windows}))


@pytest.mark.parametrize("name", ["strided-64-24", "study", "word-64"])
def test_batching_changes_neither_values_nor_order(llama, name, monkeypatch):
    plan, engine = make_plan(llama, name, "never"), load(llama)
    alone = scoring.score(engine, plan, batch_tokens=1)
    np.testing.assert_allclose(scoring.score(engine, plan, batch_tokens=4096).nll, alone.nll, atol=1e-5)
    monkeypatch.setattr(scoring, "SLAB", 1000)  # three rows at a time
    np.testing.assert_allclose(scoring.score(engine, plan, batch_tokens=4096).nll, alone.nll, atol=1e-5)


def test_batches_hold_windows_of_one_shape_and_no_more_than_asked(llama):
    plan = make_plan(llama, "word-64", "never", max_tokens=2000)
    seen = []
    for members in scoring.batches(plan, 200):
        assert len({(len(plan.windows[i].inputs), plan.windows[i].scored) for i in members}) == 1
        assert len(members) * len(plan.windows[members[0]].inputs) <= 200
        seen += members
    assert sorted(seen) == list(range(len(plan.windows)))


def test_logits_are_asked_for_only_where_scored(llama):
    engine, asked = load(llama), []

    class Watched:
        device, synchronize = engine.device, engine.synchronize

        def score(self, ids, first=0):
            asked.append((ids.shape[1], first))
            return engine.score(ids, first)

    scoring.score(Watched(), make_plan(llama, "llama.cpp", "never"), 2048)
    assert set(asked) == {(511, 256)}
