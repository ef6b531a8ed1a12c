"""A cell that landed on a machine of another kind: a status with a reason that names both, and nothing is timed."""

import json

import pytest

from tests.unit.measure.test_bytes import Study
from workflow.tradeoff.measure import __main__ as stage
from workflow.tradeoff.run import machines

HERE = {"gpu": None, "capability": None, "cpu": "AMD EPYC", "cpu_flags": ["avx2"]}


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "here", lambda: HERE)
    monkeypatch.setattr(stage, "measure", lambda args: {"protocols": "timed"})
    return Study(tmp_path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            {"device": "cpu", "expect": {"cpu_flags": ["amx_int8"]}},
            "a processor with amx_int8 is expected, and AMD EPYC",
        ),
        ({"device": "cuda", "expect": {"gpu": "T4"}}, "a card is expected with 'T4', and none is here"),
    ],
)
def test_it_is_mismatched_and_says_what_was_expected_and_what_is_here(study, kind, said):
    found = study.run("--machine", "kind", json.dumps(kind), "--device", kind["device"])
    assert (found["machine"], found["status"]) == ("kind", "mismatched")
    assert said in found["reason"] and "speed.json and run again" in found["reason"]
    # the environment is that of the machine that it ran on
    assert found["environment"]["gpu"] is None and found["environment"]["machine"]["cpu"] and "protocols" not in found
    assert found["digests"]["artifact"] == study.digest("int8-kv")


def test_on_its_own_machine_it_is_timed_and_names_its_kind(study):
    kind = {"device": "cpu", "expect": {"cpu": "epyc", "cpu_flags": ["avx2"]}}
    found = study.run("--machine", "epyc", json.dumps(kind))
    assert (found["machine"], found["status"], found["protocols"]) == ("epyc", "ok", "timed")
    assert "machine" not in study.run()
