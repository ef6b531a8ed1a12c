"""Several kinds of machine: each cell on each of them, accuracy once a device, and a run here of what runs here."""

import pytest

from tests import studies
from tests.dag.test_cluster import asked

# every machine is of the first, none of the second, and a third that needs no card either
MACHINES = {
    "here": {"device": "cpu", "threads": 3, "price_per_hour": 0.5},
    "t4": {"device": "cuda", "threads": 8, "expect": {"gpu": "T4"}},
    "amx": {"device": "cpu", "threads": 5, "expect": {"cpu": "No such CPU"}},
}
ONE = "--config", 'run_machines=["here"]'
PARTITIONS = {"here": "main", "t4": "gpu", "amx": "amx"}


@pytest.fixture(scope="module")
def planned_study(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("machines") / "checkout"
    study = studies.make(folder, trained=False)
    study.configure(lambda config: config.update(machines=MACHINES, threads=1))
    return study


@pytest.fixture(scope="module")
def text(planned_study) -> str:
    flag = f"measure:slurm_partition={PARTITIONS}[wildcards.machine]"  # as a profile says it
    return planned_study.snakemake("--dry-run", "--nocolor", "--set-resources", flag, cores=7).stdout


def outputs(text: str, rule: str) -> list[str]:
    found, current = [], None
    for line in text.splitlines():
        words = line.split()
        if words[:1] in (["rule"], ["localrule"]):
            current = words[1].rstrip(":")
        elif words[:1] == ["output:"] and current == rule:
            found += [word.rstrip(",").removeprefix("results/tiny/") for word in words[1:]]
    return found


def test_each_cell_is_timed_on_each_kind_and_scored_once_a_device(text):
    timed, scored = outputs(text, "measure"), outputs(text, "evaluate")
    assert len(timed) == 3 * 7 and "speed/amx/llama/onnx-int8-kv.json" in timed
    assert len(scored) == 2 * 2 * 7
    assert {path.split("/")[1] for path in scored} == {"here", "t4"}
    assert outputs(text, "preflight") == ["preflight/t4.json"]
    assert sorted(outputs(text, "deploy"))[0] == "deploy/amx/README.md"


def test_a_cells_job_asks_for_its_machine_and_its_card(text):
    blocks = {block.partition(":\n")[2].split("output: ")[1].split("\n")[0]: block
              for block in text.split("\nrule measure") if "output: results/tiny/speed" in block}  # fmt: skip
    card = blocks["results/tiny/speed/t4/gpt2/torch-fp32.json"]
    plain = blocks["results/tiny/speed/amx/gpt2/torch-fp32.json"]
    assert "machine=t4" in card and "gpu=1" in card and "--device cuda" in card and "--threads 8" in card
    assert "machine=amx" in plain and "gpu=0" in plain and "--device cpu" in plain and "--threads 5" in plain
    assert '--machine amx \'{"device": "cpu", "expect": {"cpu": "No such CPU"}}\'' in plain
    assert "gpu" not in asked(text)["environment"] and "machine" not in asked(text)["export"]


def test_a_run_of_kinds_that_this_machine_is_not_ends_in_one_line(planned_study):
    done = planned_study.snakemake("--nocolor", "--quiet", "all", check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert done.returncode and len(said) == 1
    assert "config key machines.amx: this is no amx: a processor with 'No such CPU' is expected, and " in said[0]
    assert said[0].endswith("add --config 'run_machines=[\"here\"]' (README, More than one machine)")
    assert not planned_study.results.joinpath("models").exists()


def test_a_part_that_is_run_here_has_its_own_cells_alone(planned_study):
    text = planned_study.snakemake("--dry-run", "--nocolor", *ONE).stdout
    assert {path.split("/")[1] for path in outputs(text, "measure")} == {"here"}
    assert len(outputs(text, "evaluate")) == 2 * 7 and not outputs(text, "preflight")


def test_a_profile_sends_each_kind_to_its_partition(text):
    for block in text.split("\nrule measure")[1:]:
        kind = block.split("results/tiny/speed/")[1].split("/")[0]
        assert f"slurm_partition={PARTITIONS[kind]}," in block.partition("Shell command")[0].replace("\n", ",")


def test_without_machines_no_path_and_no_resource_names_one(planned_study):
    planned_study.configure(lambda config: config.pop("machines"))
    text = planned_study.snakemake("--dry-run", "--nocolor").stdout
    planned_study.configure(lambda config: config.update(machines=MACHINES))
    assert "machine" not in "".join(outputs(text, "measure")) and "machine=" not in text and "--machine" not in text
    assert "speed/llama/onnx-int8-kv.json" in outputs(text, "measure")
