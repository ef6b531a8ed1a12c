"""The timing loop."""

import torch

from workflow.tradeoff.measure import timed


class Steps:
    """An engine that counts its calls."""

    def __init__(self):
        self.calls = []

    def prefill(self, ids):
        self.calls.append(("prefill", ids.shape[1]))
        return torch.zeros(1, 1, dtype=torch.int64)

    def decode(self, token):
        self.calls.append("decode")
        return token

    def synchronize(self):
        self.calls.append("wait")


def test_a_sample_is_one_prefill_and_a_wait_after_every_token():
    engine = Steps()
    taken = timed.take(engine, torch.zeros(1, 5, dtype=torch.int64), 4)
    assert engine.calls == ["wait", ("prefill", 5), "wait", *["decode", "wait"] * 3]
    assert len(taken["itl_s"]) == 3 and taken["ttft_s"] > 0


def test_the_harness_costs_microseconds():
    assert 0 < timed.harness_seconds(1000) < 1e-4
