"""--use-singularity before any job starts: one line each, and where container runs put their results."""

import os
import shutil

import pytest

from tests import studies
from workflow.tradeoff.files import sha256, write_json

FLAGS = ("--use-singularity", "--dry-run")


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory) -> studies.Study:
    """A tiny study without an image; its models are never run."""
    return studies.make(tmp_path_factory.mktemp("container") / "checkout", trained=False)


@pytest.fixture
def engine(tmp_path, monkeypatch) -> None:
    """A PATH whose apptainer only says its version: enough until a job starts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apptainer"
    program.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def image(unbuilt):
    """images/ as `make image` leaves it, with an empty image for this machine."""
    images = unbuilt.folder / "images"
    images.mkdir()
    sif = images / "cpu-0123456789abcdef.sif"
    architecture = {"x86_64": b"02", "aarch64": b"04"}[os.uname().machine]
    sif.write_bytes(b"\0" * 32 + b"SIF_MAGIC\x0001\x00" + architecture + b"\0")
    write_json(images / "image.json", {"flavour": "cpu", "sif": f"images/{sif.name}", "sif_sha256": sha256(sif)})
    yield sif
    shutil.rmtree(images)


def test_no_engine(unbuilt, tmp_path):
    # which: Slurm's plugin calls it when it is loaded
    for tool in ("bash", "sh", "git", "env", "which"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = unbuilt.snakemake(*FLAGS, check=False, PATH=str(tmp_path))
    assert "no apptainer and no singularity on PATH" in studies.only_error(done)


def test_no_image(unbuilt, engine):
    assert "make image" in studies.only_error(unbuilt.snakemake(*FLAGS, check=False))


def test_an_image_that_is_not_the_recorded_one(unbuilt, engine, image):
    image.write_bytes(image.read_bytes() + b"more")
    assert "its sha256 differs" in studies.only_error(unbuilt.snakemake(*FLAGS, check=False))


def test_an_image_for_another_architecture(unbuilt, engine, image):
    image.write_bytes(image.read_bytes().replace(b"\x0001\x00" + image.read_bytes()[45:47], b"\x0001\x0005"))
    assert "this machine is" in studies.only_error(unbuilt.snakemake(*FLAGS, check=False))


def test_container_runs_write_apart_from_host_runs(unbuilt, engine, image):
    inside = set().union(*unbuilt.planned("--use-singularity").values())
    outside = set().union(*unbuilt.planned().values())
    assert inside and all(path.startswith("results/container/tiny/") for path in inside)
    assert outside == {path.replace("results/container/", "results/") for path in inside}


def test_every_rule_declares_the_container(unbuilt):
    for file in (unbuilt.folder / "workflow" / "rules").glob("*.smk"):
        text = file.read_text()
        assert text.count("\nrule ") == text.count("    container:\n        CONTAINER\n"), file.name
