"""Measuring: the order of processes, what noise and a budget do, what a dead process means, and the timing loop."""

import pytest
import torch

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.measure import __main__ as measure
from workflow.tradeoff.measure import sample


class Fake:
    """A runner whose processes take no time: it notes who ran and gives the medians it was told to."""

    def __init__(self, variant, medians, calls):
        self.variant, self.medians, self.calls = variant, iter(medians), calls

    def warm(self):
        pass

    def run(self, proof=False, study_runs=0):
        self.calls.append((self.variant, proof, study_runs))
        taken = {"samples": [{"ttft_s": 1.0, "itl_s": [next(self.medians)] * 3}], "study": {"samples": []}}
        return taken | ({key: {} for key in measure.PROOF} if proof else {})


def run(cell=(1, 1, 1, 1), budget_s=1000, replicates=2, rounds=2):
    calls = []
    settings = {"replicates": replicates, "rounds": rounds, "noisy_share": 0.1, "budget_s": budget_s, "study_runs": 2}
    return measure.interleave(Fake("c", cell, calls), Fake("b", [1] * 9, calls), **settings), calls


def test_cell_and_baseline_alternate_and_swap_their_order():
    taken, calls = run()
    assert [name for name, _, _ in calls] == ["c", "b", "b", "c"]
    assert [entry["replicate"] for entry in taken["replicates"]] == [0, 0, 1, 1]


def test_only_the_first_process_of_the_cell_proves_and_the_studys_protocol_is_paired_too():
    _, calls = run()
    assert [call[1] for call in calls] == [True, False, False, False]
    assert [call[2] for call in calls] == [2, 2, 2, 2]


def test_libraries_are_shared_when_the_memory_of_a_process_was_recorded():
    class Warm(Fake):
        def warm(self):
            self.calls.append((f"warm {self.variant}", False, 0))

    calls = []
    settings = {"replicates": 2, "rounds": 1, "noisy_share": 1, "budget_s": 9, "study_runs": 0}
    measure.interleave(Warm("c", [1, 1], calls), Warm("b", [1, 1], calls), **settings)
    assert [name for name, _, _ in calls] == ["c", "warm c", "b", "warm b", "b", "c"]


def test_a_noisy_cell_takes_another_round_and_says_whether_it_stayed_noisy():
    assert run([1, 1])[0]["noisy"] is False
    taken, _ = run([1, 2, 2, 2])
    assert (taken["rounds"], taken["noisy"]) == (2, True)


def test_the_budget_leaves_two_replicates():
    taken, _ = run(budget_s=0, replicates=5)
    assert sum(entry["role"] == "cell" for entry in taken["replicates"]) == 2


def test_a_baseline_that_fails_is_named():
    class Dead(Fake):
        def run(self, proof=False, study_runs=0):
            raise CellFailure("out_of_memory", "the process was killed")

    with pytest.raises(CellFailure, match="out_of_memory: its baseline, b: the process was killed"):
        measure.interleave(
            Fake("c", [1], []), Dead("b", [], []), replicates=2, rounds=1, noisy_share=1, budget_s=9, study_runs=1
        )


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
    taken = sample.take(engine, torch.zeros(1, 5, dtype=torch.int64), 4)
    assert engine.calls == ["wait", ("prefill", 5), "wait", *["decode", "wait"] * 3]
    assert len(taken["itl_s"]) == 3 and taken["ttft_s"] > 0


def test_the_harness_costs_microseconds():
    assert 0 < sample.harness_seconds(1000) < 1e-4
