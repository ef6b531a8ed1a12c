"""A tiny study inside the image, with --use-singularity and without a network.

Needs apptainer on PATH and an image: `make image FLAVOUR=cpu`. `.ci/run` installs the one and builds the other; where
that cannot be had, these tests are skipped with the reason, and nothing else depends on them.
"""

import contextlib
import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import studies
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json, write_json
from workflow.tradeoff.run import container

VARIANTS = ["torch-fp32", "bnb-int8", "onnx-int8-kv"]  # one for each engine
NLL_WITHIN = 1e-4
PROBE = """
configfile: "config/tiny.yaml"

include: "workflow/rules/common.smk"

rule probe:
    output: "probe.json"
    container: CONTAINER
    shell: "python -m probe {output}"
"""
PROBE_MODULE = """
import importlib.util, json, os, sys
names = ("planted_by_path", "planted_in_user_site", "snakemake")
found = {name: importlib.util.find_spec(name) is not None for name in names}
seen = {"found": found, "path": sys.path, "prefix": sys.prefix, "variable": os.environ.get("PLANTED")}
json.dump(seen, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def image() -> Path:
    """The folder of the recorded image; a skip with the reason when it cannot run here."""
    try:
        with contextlib.chdir(studies.REPOSITORY):
            container.image(None)
    except UserError as error:
        pytest.skip(str(error))
    return studies.REPOSITORY / "images"


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """A command prefix that takes the network away; a skip where namespaces are forbidden."""
    for prefix in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True).returncode:
            return prefix
    pytest.skip("no network namespace can be made here")


@pytest.fixture(scope="module")
def study(finished, image, offline, tmp_path_factory) -> studies.Study:
    """One model in three variants, through every stage: on the host, then in the image without a network."""
    study = finished.copy(tmp_path_factory.mktemp("image") / "checkout")
    study.configure(reduce)
    (study.folder / "images").symlink_to(image)
    study.snakemake()
    study.snakemake("--use-singularity", prefix=offline)
    return study


def reduce(config: dict) -> None:
    config["models"] = {"llama": {**config["models"]["llama"], "variants": VARIANTS}}


def summary(folder: Path) -> dict[str, dict]:
    with open(folder / "tables" / "summary.csv") as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def test_the_same_tables_as_on_the_host(study):
    host, inside = summary(study.results), summary(study.folder / "results/container/tiny")
    assert list(host) == list(inside) == VARIANTS
    for variant in VARIANTS:
        assert inside[variant]["status"] == host[variant]["status"] == "ok", inside[variant]["reason"]
        assert inside[variant]["eval_tokens"] == host[variant]["eval_tokens"]
        assert float(inside[variant]["nll"]) == pytest.approx(float(host[variant]["nll"]), abs=NLL_WITHIN)
        assert inside[variant]["weight_mb"] == host[variant]["weight_mb"]


def job_logs(results: Path) -> list[Path]:
    """The logs of jobs: progress.log is the scheduler's own."""
    return [log for log in (results / "logs").rglob("*.log") if log.name != "progress.log"]


def test_every_log_opens_with_where_it_ran(study, image):
    sif = Path(read_json(image / "image.json")["sif"]).name
    inside = job_logs(study.folder / "results/container/tiny")
    assert inside
    for log in inside:
        assert log.read_text().splitlines()[0] == f"image: {study.folder / 'images' / sif}"
    for log in job_logs(study.results):
        assert log.read_text().splitlines()[0] == "image: host"
    assert read_json(study.folder / "results/container/tiny/environment.json")["image"] == sif
    assert read_json(study.results / "environment.json")["image"] in (None, "host")


def test_neither_run_invalidates_the_other(study):
    assert study.planned() == {}
    assert study.planned("--use-singularity") == {}


def test_another_image_reruns_what_ran_in_the_first(study, image):
    built = read_json(image / "image.json")
    images = study.folder / "images"
    images.unlink()
    images.mkdir()
    other = images / "cpu-ffffffffffffffff.sif"
    os.link(image.parent / built["sif"], other)
    write_json(images / "image.json", {**built, "sif": f"images/{other.name}"})
    try:
        planned = study.planned("--use-singularity")
        assert {"fetch_model", "measure", "evaluate", "report"} <= set(planned)
        assert study.planned() == {}
        # the same digest, built again: the name is the same, so nothing runs
        other.rename(images / Path(built["sif"]).name)
        write_json(images / "image.json", built)
        assert study.planned("--use-singularity") == {}
    finally:
        shutil.rmtree(images)
        images.symlink_to(image)


@pytest.mark.parametrize("flags", [(), ("--apptainer-args=--nv --cleanenv",)], ids=["default", "cleanenv"])
def test_the_hosts_packages_are_invisible(study, flags, tmp_path):
    plant(tmp_path / "by_path" / "planted_by_path.py")
    # the rule's home is the working directory
    plant(study.folder / ".local/lib/python3.11/site-packages/planted_in_user_site.py")
    (study.folder / "probe.py").write_text(PROBE_MODULE)
    (study.folder / "probe.smk").write_text(PROBE)
    (study.folder / "probe.json").unlink(missing_ok=True)
    study.snakemake(
        "--snakefile", "probe.smk", "--use-singularity", *flags, "probe",
        PYTHONPATH=str(tmp_path / "by_path"), PYTHONUSERBASE=str(study.folder / ".local"), PLANTED="yes",
    )  # fmt: skip
    probe = json.loads((study.folder / "probe.json").read_text())
    assert probe["found"] == {"planted_by_path": False, "planted_in_user_site": False, "snakemake": False}
    assert probe["prefix"] == "/opt/venv"
    assert probe["variable"] == (None if flags else "yes")
    own = ("/opt/venv/", "/usr/lib/", "/usr/local/lib/")
    assert all(path == str(study.folder) or path.startswith(own) for path in probe["path"])


def plant(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")


def test_the_image_holds_what_its_lock_says(image):
    built = read_json(image / "image.json")
    engine = shutil.which("apptainer") or shutil.which("singularity")
    inside = [engine, "exec", "--cleanenv", str(image.parent / built["sif"])]
    whole = subprocess.run([*inside, "python", "-m", "pip", "check"], capture_output=True, text=True)
    assert whole.stdout.strip() == "No broken requirements found."
    listed = subprocess.run([*inside, "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True)
    installed = {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed.stdout)}
    lock = (studies.REPOSITORY / "envs" / f"{built['flavour']}.lock").read_text().splitlines()
    pinned = dict(line.split(" ")[0].split("==") for line in lock if line[:1].isalpha())
    assert {name: installed.get(name) for name in pinned} == pinned
    compilers = "for name in gcc cc g++ c++ clang; do command -v $name; done"  # dash looks at one name a call
    left = subprocess.run([*inside, "sh", "-c", compilers], capture_output=True, text=True).stdout.split()
    # Triton calls one while it runs
    assert left == ([] if built["flavour"] == "cpu" else ["/opt/venv/bin/clang"])
