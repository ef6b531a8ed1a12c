"""Several kinds of machine: each cell on each of them, accuracy once a device, and a run here of what runs here."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from tests import studies, synthetic
from tests.dag.test_cluster import asked
from tests.dag.test_merge import RAW

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


def test_halves_by_machine_are_merged_and_nothing_of_a_machine_runs_again(planned_study):
    """One half of each kind, the second of a machine that this one is not: tables of both, on this one."""
    root, variants = planned_study.folder, ("torch-fp32", "bnb-int8")
    whole = synthetic.write_machines(root / "whole", variants=variants)
    for name in (path.stem for path in (whole.folder / "quality").rglob("*.npz")):
        (whole.folder / "quality" / "cpu-amx" / "tiny-a" / f"{name}.diagnosis.json").write_text("{}")
    for half, left_out in (("a", "arm"), ("b", "cpu-amx")):
        shutil.copytree(whole.folder, root / half)
        for kind in ("speed", "quality"):
            shutil.rmtree(root / half / kind / left_out, ignore_errors=True)
    config = yaml.safe_load((root / "config" / "tiny.yaml").read_text())
    kinds = {"cpu-amx": {"device": "cpu"}, "arm": {"device": "cpu", "expect": {"cpu": "No such CPU"}}}
    model = {"tiny-a": {"source": "local", "path": "inputs/llama", "variants": list(variants)}}
    config |= {"study": "synthetic", "machines": kinds, "models": model}
    config["corpus"]["name"] = "synthetic-wiki"
    (root / "config" / "merged.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    merge = [sys.executable, "-m", "workflow.tradeoff.run.merge", "a", "b", "--config", "config/merged.yaml"]
    done = subprocess.run(merge, cwd=root, capture_output=True, text=True)
    expected = "4 cells of 1 models on 2 kinds of machine from 2 runs, in results/synthetic\n"
    assert done.stdout == expected, done.stderr
    tables, mtime = "results/synthetic/tables", ("--rerun-triggers", "mtime", "--")
    plan = planned_study.snakemake("--dry-run", "--nocolor", *mtime, "results/synthetic/report.md",
                                   configfile="config/merged.yaml").stdout  # fmt: skip
    assert outputs(plan, "report") and not [rule for rule in RAW if outputs(plan, rule)]
    planned_study.snakemake(*mtime, f"{tables}/summary.csv", configfile="config/merged.yaml")
    summary = pd.read_csv(root / tables / "summary.csv")
    assert list(summary["machine"]) == ["cpu-amx"] * 2 + ["arm"] * 2 and set(summary["status"]) == {"ok"}
