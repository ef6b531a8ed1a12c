"""What shows that a cache is in use: steps and passes at two lengths, however busy the machine was for a while."""

import itertools

import pytest
import torch

from workflow.tradeoff import growth
from workflow.tradeoff.measure import timed


class Clock:
    """A clock that an engine moves on."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Timed:
    """An engine whose pass takes 0.1 ms a token and whose step 1 ms, or a whole pass where it keeps no cache.

    Until ``busy_until`` others have the cores: each step and pass takes ``waits`` longer, the short text's excepted.
    """

    context, device = 4096, torch.device("cpu")

    def __init__(self, clock, cached, busy_until=0.0, waits=0.02):
        self.clock, self.cached, self.busy_until, self.waits = clock, cached, busy_until, waits

    def spend(self, seconds):
        late = self.clock.now < self.busy_until and self.length > 16
        self.clock.now += seconds + (self.waits if late else 0)

    def prefill(self, ids):
        self.length = ids.shape[1]
        self.spend(1e-3 + 1e-4 * self.length)
        return ids[:, :1]

    def decode(self, token):
        self.length += 1
        self.spend(1e-3 if self.cached else 1e-3 + 1e-4 * self.length)
        return token

    def synchronize(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timed, "time", clock)
    return clock


def looks_like_a_pass(engine):
    found = timed.cache_growth(engine, torch.ones(1, 8, dtype=torch.int64))
    return growth.costs_a_pass(found["step_s"], found["pass_s"]), found


def test_a_cache_on_a_quiet_machine_takes_the_least_rounds(clock):
    told, found = looks_like_a_pass(Timed(clock, cached=True))
    assert not told and found["rounds"] == timed.GROWTH_ROUNDS
    assert found["step_s"] == pytest.approx([1e-3] * 2) and found["pass_s"] == pytest.approx([1.8e-3, 7.4e-3])


def test_others_on_the_machine_do_not_make_a_cache_look_like_none(clock):
    told, found = looks_like_a_pass(Timed(clock, cached=True, busy_until=timed.DOUBT_S / 2))
    assert not told and found["rounds"] > timed.GROWTH_ROUNDS


def test_no_cache_is_told_and_ends(clock):
    told, _ = looks_like_a_pass(Timed(clock, cached=False))
    assert told and clock.now < timed.DOUBT_S + 0.1


def test_a_variant_that_promises_no_cache_is_not_doubted(clock):
    found = timed.cache_growth(Timed(clock, cached=False), torch.ones(1, 8, dtype=torch.int64), cached=False)
    assert growth.costs_a_pass(found["step_s"], found["pass_s"]) and found["rounds"] == timed.GROWTH_ROUNDS


def test_a_slow_engine_is_not_asked_for_longer_than_the_least_rounds(clock):
    """Passes of minutes, as of a large model on a CPU: no doubt is worth more of them."""
    slow = Timed(clock, cached=False)
    slow.spend = lambda seconds: setattr(clock, "now", clock.now + 100 * seconds)
    told, found = looks_like_a_pass(slow)
    assert told and found["rounds"] <= 2 * timed.GROWTH_ROUNDS


def test_both_lengths_are_met_in_turn(clock):
    engine, lengths = Timed(clock, cached=True), []
    prefill = engine.prefill
    engine.prefill = lambda ids: (lengths.append(ids.shape[1]), prefill(ids))[1]
    timed.cache_growth(engine, torch.ones(1, 8, dtype=torch.int64))
    assert lengths == list(itertools.chain(*[[8, 64]] * timed.GROWTH_ROUNDS))
