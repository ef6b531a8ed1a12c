"""The container image that rules run in with ``--use-singularity``: which one, and whether it can run here.

``make image`` records what it built in ``images/image.json``::

    {"flavour": "cpu", "image_id": "sha256:…", "sif": "images/cpu-….sif", "sif_sha256": "…", "lock_sha256": "…", …}

The config's ``container: {image: …}`` goes before the record: a ``docker://…@sha256:…`` or the path of a SIF.
"""

import json
import os
import platform
import re
import shutil
from pathlib import Path

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json, sha256, write_json

RECORD = Path("images/image.json")
VERIFIED = Path("images/verified.json")
PINNED = re.compile(r"docker://\S+@sha256:[0-9a-f]{64}")
# SIF header: 32 bytes of launcher, 10 of magic, 3 of version, 3 of architecture (github.com/apptainer/sif, pkg/sif)
SIF_MAGIC = slice(32, 42)
SIF_ARCHITECTURE = slice(45, 47)
SIF_ARCHITECTURES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le"}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64", "ppc64le": "ppc64le"}


def image(configured: str | None, record: Path = RECORD) -> str:
    """The value of ``container:`` for every rule: the configured image, or the SIF that ``make image`` recorded.

    Raises UserError when there is none, or when it cannot run on this machine: no engine, another architecture, or a
    SIF that is not the recorded one.
    """
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        raise UserError(
            "--use-singularity: no apptainer and no singularity on PATH: install one (README, container section) "
            "or run without the flag"
        )
    if configured is None:
        return _recorded(record)
    if configured.startswith("docker://"):
        if not PINNED.fullmatch(configured):
            raise UserError(f"container: image: {configured} names no digest: write docker://NAME@sha256:DIGEST")
        return configured
    path = Path(configured)
    if not path.is_file():
        raise UserError(
            f"container: image: {configured} is not there: correct the path, or remove the key and make image"
        )
    _check_architecture(path)
    return f"{path}"


def _recorded(record: Path) -> str:
    if not record.is_file():
        raise UserError(
            "--use-singularity: no image is built yet: run `make image`, "
            "or `make image FLAVOUR=cpu` for a machine without a GPU"
        )
    try:
        built = read_json(record)
        sif, digest, again = Path(built["sif"]), built["sif_sha256"], f"`make image FLAVOUR={built['flavour']}`"
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{record} is not what `make image` writes: run `make image` again") from None
    if not sif.is_file():
        raise UserError(f"{sif}, recorded in {record}, is not there: run {again}")
    _check_architecture(sif)
    if _sha256_once(sif) != digest:
        raise UserError(f"{sif} is not the file recorded in {record} (its sha256 differs): remove it and run {again}")
    return str(sif)


def architecture(sif: Path) -> str | None:
    """The architecture in a SIF's header, in Go's words (``amd64``); None when the file is no SIF."""
    with open(sif, "rb") as file:
        header = file.read(48)
    if not header[SIF_MAGIC].startswith(b"SIF_MAGIC"):
        return None
    return SIF_ARCHITECTURES.get(header[SIF_ARCHITECTURE], "unknown")


def _check_architecture(sif: Path) -> None:
    found, here = architecture(sif), MACHINES.get(platform.machine(), platform.machine())
    if found is None:
        raise UserError(f"{sif} is no SIF image: remove it and run `make image` again")
    if found != here:
        raise UserError(f"{sif} is for {found} and this machine is {here}: run `make image` on this kind of machine")


def _sha256_once(sif: Path, verified: Path = VERIFIED) -> str:
    """SHA-256 of a SIF; gigabytes are not read again while size and times of the file stay as they were."""
    status = os.stat(sif)
    stamp = [str(sif.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    known = read_json(verified) if verified.is_file() else {}
    if known.get("file") == stamp:
        return known["sha256"]
    digest = sha256(sif)
    write_json(verified, {"file": stamp, "sha256": digest})
    return digest
