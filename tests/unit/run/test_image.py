"""From an archive of an image to a SIF that is named and recorded by the image's id."""

import hashlib
import io
import json
import tarfile

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json, sha256
from workflow.tradeoff.run import image

CONFIG = b'{"architecture": "amd64", "config": {"Cmd": ["python"]}}'


@pytest.fixture
def archive(tmp_path):
    """A docker archive without layers."""
    path = tmp_path / "image.tar"
    members = {"manifest.json": json.dumps([{"Config": "config.json", "Layers": []}]).encode(), "config.json": CONFIG}
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An apptainer that writes an empty SIF and counts its builds; ``engine.fails`` makes it fail."""
    monkeypatch.chdir(tmp_path)
    counted = tmp_path / "builds"
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo built >> {counted}\n[ -e {tmp_path}/fails ] && echo "no space" && exit 255\n'
        "for sif; do case $sif in *.sif) break;; esac; done\n"
        'printf "%32sSIF_MAGIC\\00001\\00002\\000" "" > "$sif"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return lambda: counted.read_text().count("built")


def build(archive, lock) -> dict:
    lock.write_text("torch==2.13.0\n")
    image.main(
        ["--flavour", "cpu", "--archive", str(archive), "--lock", str(lock), "--base", "b", "--builder", "buildah"]
    )
    return read_json("images/image.json")


def test_the_record_names_the_id_and_the_file(archive, engine, tmp_path):
    built = build(archive, tmp_path / "cpu.lock")
    digest = hashlib.sha256(CONFIG).hexdigest()
    assert built["image_id"] == f"sha256:{digest}"
    assert built["sif"] == f"images/cpu-{digest[:16]}.sif"
    assert built["sif_sha256"] == sha256(tmp_path / built["sif"])
    assert built["architecture"] == "amd64"
    assert built["lock_sha256"] == sha256(tmp_path / "cpu.lock")


def test_a_known_id_keeps_its_file(archive, engine, tmp_path):
    first = build(archive, tmp_path / "cpu.lock")
    assert build(archive, tmp_path / "cpu.lock") == first
    assert engine() == 1


def test_a_broken_file_is_made_again(archive, engine, tmp_path):
    built = build(archive, tmp_path / "cpu.lock")
    (tmp_path / built["sif"]).write_bytes(b"half")
    assert build(archive, tmp_path / "cpu.lock")["sif_sha256"] == sha256(tmp_path / built["sif"])
    assert engine() == 2


def test_a_failed_build_leaves_no_file_and_no_record(archive, engine, tmp_path):
    (tmp_path / "fails").touch()
    with pytest.raises(UserError, match="no space"):
        build(archive, tmp_path / "cpu.lock")
    assert not list((tmp_path / "images").glob("*"))
