"""A cell at further loads: each in pairs of its own, and what fails at one leaves the others their figures."""

import pytest
import torch

from tests import tiny
from tests.unit.measure.test_pairs import LOUD, QUIET, Runner, did, plan
from workflow.tradeoff import samples
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.loads import Load, dumps, find, further, measured, parse
from workflow.tradeoff.measure import pairs, sample, under_load

MEASURE = {"prompt_tokens": 32, "new_tokens": 20}
BATCH, LONG = Load("batch", 4, 32, 20), Load("1x1024+20", 1, 1024, 20)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(pairs, "PAUSE_S", 0)


def take(loads, cell=(), baseline=(), **changes):
    log = []
    runners = Runner("c", log, **dict(cell)), Runner("b", log, **dict(baseline))
    return under_load.measure(*runners, plan(**changes), loads, "", " (again)"), log


def test_loads_leave_out_the_standard_one_and_fill_in_what_it_says():
    given = [{"sequences": 1}, {"sequences": 4, "name": "batch"}, {"prompt_tokens": 1024}]
    assert further(MEASURE | {"loads": given}) == [BATCH, LONG] == parse(dumps([BATCH, LONG]))
    assert [load.name for load in measured(MEASURE | {"loads": given})] == ["standard", "batch", "1x1024+20"]
    assert further(MEASURE) == []


def test_a_load_is_found_by_name_or_point():
    known = [Load("standard", 1, 32, 20), BATCH]
    assert find("batch", known, "s") == find({"sequences": 4}, known, "s") == BATCH
    with pytest.raises(UserError, match=r"^s: the load .* is not measured: add it to measure\.loads, or name"):
        find({"sequences": 5}, known, "s")


def test_each_load_is_measured_as_the_standard_one_is():
    found, log = take([BATCH, LONG])
    assert [(entry["name"], entry["sequences"], entry["status"]) for entry in found] == [
        ("batch", 4, "ok"), ("1x1024+20", 1, "ok"),
    ]  # fmt: skip
    assert did(log, "turn") == ["c", *"cbbc", *"bccb"] * 2
    assert not did(log, "proof", "study") and did(log, "held") == ["c", "c"]
    for entry in found:
        assert entry["memory"]["cache_bytes"] == 4 and entry["pairing"] == "live"
        assert len(samples.pairs(entry["replicates"], samples.decode_rate)) == 2
        assert "study" not in entry["replicates"][0]


def test_what_fails_at_one_load_fails_there_alone():
    tries = iter([True])  # the first process of all
    found, _ = take([BATCH, LONG], cell={"fails": lambda log: next(tries, False)})
    assert [(entry["status"], entry["reason"]) for entry in found] == [
        ("out_of_memory", "the process was killed"), ("ok", ""),
    ]  # fmt: skip
    assert "replicates" not in found[0] and found[1]["replicates"]


def test_a_cell_that_runs_where_its_baseline_does_not_has_no_ratio():
    [found], _ = take([BATCH], baseline={"fails": lambda log: True})
    assert (found["status"], found["pairing"]) == ("ok", "alone")
    assert found["reason"] == "no ratio: out_of_memory: its baseline, b: the process was killed"
    assert {entry["role"] for entry in found["replicates"]} == {"cell"}


def test_a_disturbed_load_says_what_to_do():
    [first, second], _ = take([BATCH, LONG], cell={"lost": [*[LOUD] * 5, QUIET]}, budget_s=0, pairs=2)
    assert first["status"] == "disturbed" and first["reason"].endswith(" (again)")
    assert second["status"] == "ok"


class Args:
    def __init__(self, folder):
        self.variant, self.artifact, self.model_folder, self.device, self.threads = (
            "torch-fp32",
            folder,
            folder,
            "cpu",
            1,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return sample.Server(Args(tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")))


def test_a_batch_is_timed_and_its_keys_and_values_are_counted(server):
    point = {"sequences": 3, "prompt_tokens": 8, "new_tokens": 4}
    taken = server.turn(point)
    assert len(taken["itl_s"]) == 3 and server.ids.shape == (3, 8)
    assert server.engine.cache.get_seq_length() == 11
    held = server.held(point)["memory"]
    assert held == {"cache_bytes": 3 * server.engine.cache_bytes(12), "cache_length": 12}


def test_rows_of_a_batch_differ_and_the_first_is_the_standard_prompt(server):
    folder = server.args.model_folder
    rows = sample.passage_ids(folder, 300, 4)
    assert torch.equal(rows[0], sample.passage_ids(folder, 300)[0]) and len(torch.unique(rows, dim=0)) == 4
    text = sample.encode(folder, sample.PASSAGE)
    assert torch.equal(rows[:1], text.repeat(1, 9)[:, :300])


def test_what_cannot_run_at_a_load_is_unsupported_there(server, monkeypatch):
    point = {"sequences": 2, "prompt_tokens": tiny.CONTEXT, "new_tokens": 4}
    with pytest.raises(CellFailure, match=f"unsupported: 516 tokens exceed the model's context of {tiny.CONTEXT}"):
        server.prepare(point)
    monkeypatch.setattr(server.engine, "one_at_a_time", "a captured step", raising=False)
    with pytest.raises(CellFailure, match="unsupported: 2 sequences at once: a captured step"):
        server.prepare(point)
