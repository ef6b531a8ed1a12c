"""Which image the rules get, and each way in which there is none, in one line."""

import json
import platform

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import sha256, write_json
from workflow.tradeoff.run import container


def sif(path, architecture=b"02", body=b"squashfs"):
    """A file with a SIF's header."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\x00" + architecture + b"\0" + body
    )
    return path


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A record, as `make image` leaves it, on an x86_64 machine with apptainer. Returns its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(container.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    file = sif(tmp_path / "images" / "cpu-0123456789abcdef.sif")
    record = {"flavour": "cpu", "sif": str(file.relative_to(tmp_path)), "sif_sha256": sha256(file)}
    write_json(container.RECORD, record)
    return container.RECORD


def refused(*arguments) -> str:
    with pytest.raises(UserError) as error:
        container.image(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_recorded_sif(built):
    assert container.image(None) == "images/cpu-0123456789abcdef.sif"


def test_a_published_image_goes_before_the_record(built):
    published = "docker://example.org/tradeoff@sha256:" + "a" * 64
    assert container.image(published) == published


def test_a_published_image_without_a_digest(built):
    assert "docker://NAME@sha256:DIGEST" in refused("docker://example.org/tradeoff:latest")


def test_a_configured_file(built):
    assert container.image("images/cpu-0123456789abcdef.sif") == "images/cpu-0123456789abcdef.sif"
    assert "container: image: elsewhere.sif is not there" in refused("elsewhere.sif")


def test_no_engine(built, monkeypatch):
    monkeypatch.setattr(container.shutil, "which", lambda name: None)
    assert "no apptainer and no singularity on PATH" in refused(None)


def test_singularity_serves_too(built, monkeypatch):
    monkeypatch.setattr(
        container.shutil, "which", lambda name: "/usr/bin/singularity" if name == "singularity" else None
    )
    assert container.image(None).endswith(".sif")


def test_nothing_built(built):
    built.unlink()
    assert "make image" in refused(None)


def test_a_record_of_another_hand(built):
    built.write_text('{"sif": ')
    assert "images/image.json is not what `make image` writes" in refused(None)
    built.write_text(json.dumps({"sif": "images/cpu-0123456789abcdef.sif"}))
    assert "images/image.json is not what `make image` writes" in refused(None)


def test_a_sif_that_went_away(built, tmp_path):
    (tmp_path / "images/cpu-0123456789abcdef.sif").unlink()
    assert "run `make image FLAVOUR=cpu`" in refused(None)


def test_another_architecture(built, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "is for amd64 and this machine is arm64" in refused(None)


def test_a_file_that_is_no_sif(built, tmp_path):
    (tmp_path / "images/cpu-0123456789abcdef.sif").write_bytes(b"x" * 100)
    assert "is no SIF image" in refused(None)


def test_another_sif_under_the_recorded_name(built, tmp_path):
    container.image(None)
    sif(tmp_path / "images/cpu-0123456789abcdef.sif", body=b"tampered")
    assert "its sha256 differs" in refused(None)


def test_a_whole_sif_is_read_once(built, monkeypatch):
    container.image(None)
    monkeypatch.setattr(container, "sha256", lambda path: pytest.fail("read again"))
    assert container.image(None).endswith(".sif")
