"""Machines that are not here: what each lacks is said in one line."""

import dataclasses

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import preflight

T4 = preflight.Machine(
    image=None,
    driver="535.104.05",
    library=True,
    build="12.8",
    architectures=("sm_75", "sm_80", "sm_90"),
    capability=(7, 5),
    compiler=True,
)


def problems(**changes):
    return preflight.problems(dataclasses.replace(T4, **changes))


def test_a_t4_with_the_image_is_ready():
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": None}, "build for the CPU: install envs/cuda.lock"),
        ({"driver": None, "library": False, "capability": None}, "no NVIDIA driver is loaded here"),
        (
            {"image": "/images/cuda.sif", "library": False, "capability": None},
            "cuda.sif does not see it: run with --nv",
        ),
        ({"library": False, "capability": None}, "libcuda.so.1 is not found"),
        ({"driver": "515.65.01"}, "515.65.01 is too old for CUDA 12.8, which needs 525"),
        ({"driver": "575.1", "build": "13.0"}, "too old for CUDA 13.0, which needs 580"),
        ({"architectures": ("sm_80", "sm_90")}, "no code for this card (compute capability 7.5"),
        ({"capability": (10, 0)}, "no code for this card (compute capability 10.0"),
    ],
)
def test_what_is_missing_is_said_in_one_line(changes, words):
    first = problems(**changes)[0]
    assert words in first and "\n" not in first


def test_code_of_the_same_major_or_for_the_drivers_compiler_runs():
    assert problems(capability=(8, 6)) == []
    assert problems(architectures=("sm_80", "compute_90"), capability=(12, 0)) == []
    assert problems(driver="580.1", build="13.0") == []


def test_a_compiler_is_asked_for_by_graph_variants_alone():
    without = dataclasses.replace(T4, compiler=False)
    assert preflight.problems(without) == []
    assert "install gcc" in preflight.compiler(without)


def test_the_stage_ends_in_the_first_line(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "look", lambda: dataclasses.replace(T4, driver="470.1", compiler=False))
    with pytest.raises(UserError, match="too old for CUDA 12"):
        preflight.main(["--graph", "--output", str(tmp_path / "preflight.json")])
    monkeypatch.setattr(preflight, "look", lambda: T4)
    preflight.main(["--graph", "--output", str(tmp_path / "preflight.json")])
    assert (tmp_path / "preflight.json").is_file()


def test_this_machine_can_be_read():
    machine = preflight.look()
    assert isinstance(machine.compiler, bool) and (machine.capability is None) == (not machine.architectures)
