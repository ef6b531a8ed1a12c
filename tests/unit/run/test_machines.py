"""Kinds of machine: which are run, where accuracy is taken, and a cell that ran on another machine says so."""

import json
from pathlib import Path

import pytest

from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.run import config as study_config
from workflow.tradeoff.run import machines

T4 = {"device": "cuda", "expect": {"gpu": "T4", "capability": "7.5"}}
AMX = {"device": "cpu", "expect": {"cpu": "xeon", "cpu_flags": ["amx_int8", "avx512_vnni"]}}
CARD = {"gpu": "Tesla T4", "capability": "7.5", "cpu": "AMD EPYC", "cpu_flags": ["avx2"]}
XEON = {"gpu": None, "capability": None, "cpu": "Intel(R) Xeon(R) 8481C", "cpu_flags": ["amx_int8", "avx512_vnni"]}


@pytest.mark.parametrize(
    ("kind", "found", "said"),
    [
        (T4, CARD, ""),
        (AMX, XEON, ""),
        ({"device": "cpu"}, CARD, ""),
        (T4, XEON, "a card is expected with 'T4', and none is here"),
        ({"device": "cuda"}, XEON, "a card is expected, and none is here"),
        (T4, CARD | {"gpu": "NVIDIA H100", "capability": "9.0"},
         "a card with 'T4' is expected, and NVIDIA H100 is here; compute capability 7.5 is expected, and 9.0 is here"),
        (AMX, XEON | {"cpu_flags": ["amx_int8"]},
         "a processor with avx512_vnni is expected, and Intel(R) Xeon(R) 8481C has not"),
        (AMX, XEON | {"cpu": "AMD EPYC"}, "a processor with 'xeon' is expected, and AMD EPYC is here"),
    ],
)  # fmt: skip
def test_a_machine_is_held_against_what_its_kind_expects(kind, found, said):
    assert machines.misfit("kind", kind, found) == (f"this is no kind: {said}" if said else "")


def test_this_machine_says_what_it_is():
    here = machines.here()
    assert here["cpu"] and isinstance(here["cpu_flags"], list)
    assert set(here) == {"gpu", "capability", "cpu", "cpu_flags"}


def test_a_cell_on_another_machine_is_a_failure_that_names_both(monkeypatch):
    monkeypatch.setattr(machines, "here", lambda: XEON)
    machines.check(machines.flags("amx", AMX)[1:], Path("x.json"))
    machines.check(None, Path("x.json"))
    with pytest.raises(CellFailure, match=r"this is no t4: .*none is here.*delete x\.json and run again") as failed:
        machines.check(machines.flags("t4", T4)[1:], Path("x.json"))
    assert failed.value.status == "mismatched"


def test_accuracy_is_taken_on_the_first_of_a_device_and_where_it_is_asked_for():
    config = {
        "threads": 4,
        "machines": {
            "t4": T4, "h100": {"device": "cuda", "threads": 0}, "a100": {"device": "cuda", "evaluate": True},
            "amx": AMX,
        },
    }  # fmt: skip
    found = machines.kinds(config)
    assert {name: kind["scored_by"] for name, kind in found.items()} == {
        "t4": "t4", "h100": "t4", "a100": "a100", "amx": "amx",
    }  # fmt: skip
    assert (found["h100"]["threads"], found["t4"]["threads"]) == (0, 4)
    # a part that is run here keeps the paths of the whole
    assert machines.kinds(config | {"run_machines": ["h100"]})["h100"]["scored_by"] == "t4"
    assert list(machines.kinds(config | {"run_machines": ["amx", "t4"]})) == ["t4", "amx"]
    assert machines.kinds({"threads": 1}) == {}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"run_machines": ["t4"]}, "run_machines: no kind of machine is called t4: the config has no machines"),
        ({"machines": {"t4": T4}, "run_machines": ["t44"]}, "no kind of machine is called t44: did you mean t4?"),
        ({"machines": {"x": {"device": "cpu", "expect": {"gpu": "T4"}}}}, "machines.x.expect.gpu: its models run on"),
        ({"machines": {"x": {"threads": 2}}}, "machines.x.device is missing"),
        ({"machines": {"x": {"device": "tpu"}}}, "'tpu' is unknown: known are cpu, cuda"),
        (
            {"machines": {"x": {"device": "cpu", "price_per_hours": 2}}},
            "machines.x.price_per_hours is unknown: did you mean price_per_hour?",
        ),
        (
            {"machines": {"x": {"device": "cuda", "expect": {"capability": 7.5}}}},
            "machines.x.expect.capability: give text",
        ),
        ({"machines": {"X": {"device": "cpu"}}}, "'X' does not fit"),
        ({"machines": {}}, "machines is empty"),
    ],
)
def test_a_kind_that_cannot_be_is_told_in_one_line(keys, said, tmp_path):
    path = tmp_path / "study.yaml"
    base = {"models": {"m": {"source": "random", "seed": 0, "architecture": {"model_type": "gpt2"}}}}
    corpus = {"source": "local", "path": "x", "sha256": "0" * 64, "format": "wikitext"}
    path.write_text(json.dumps(base | {"corpus": corpus} | keys))
    with pytest.raises(UserError) as error:
        study_config.load(str(path))
    assert said in str(error.value) and "\n" not in str(error.value)
