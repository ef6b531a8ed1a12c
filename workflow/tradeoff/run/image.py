"""Turn an image archive into a SIF named by its id, and record it as the one that the workflow uses.

    python -m workflow.tradeoff.run.image --flavour cpu --archive image.tar --lock envs/cpu.lock --base … \\
        --builder buildah

``envs/build-image.sh`` calls it, with the standard library alone. A SIF of the same id that is whole is kept.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file, read_json, sha256, write_json
from workflow.tradeoff.run.container import RECORD, architecture

ID_DIGITS = 16


def image_id(archive: Path) -> str:
    """Hex digest of the image's configuration, which names its layers: what docker and podman show as the image id."""
    with tarfile.open(archive) as tar:
        member = json.load(tar.extractfile("manifest.json"))[0]["Config"]
        return hashlib.sha256(tar.extractfile(member).read()).hexdigest()


def build_sif(archive: Path, sif: Path, level: int) -> None:
    """Write ``sif`` from a docker archive by apptainer. Raises UserError when it fails, after apptainer's own words."""
    engine = shutil.which("apptainer") or shutil.which("singularity")
    if engine is None:
        raise UserError("no apptainer and no singularity on PATH: install one (Debian 12: envs/install-apptainer.sh)")
    squash = f"-comp zstd -Xcompression-level {level}"
    with atomic_file(sif) as temporary:
        command = [engine, "build", "--disable-cache", "--force", "--mksquashfs-args", squash]
        command += [str(temporary), f"docker-archive:{archive}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise UserError(f"{done.stdout}\n{engine} could not make {sif}: its words are above")


def whole(record: Path) -> bool:
    """Whether the SIF that ``record`` names is there with the recorded bytes."""
    if not record.is_file():
        return False
    built = read_json(record)
    return Path(built["sif"]).is_file() and sha256(built["sif"]) == built["sif_sha256"]


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--flavour", required=True, choices=["cuda", "cpu"])
    parser.add_argument("--archive", required=True, type=Path, metavar="FILE", help="docker archive of the image")
    parser.add_argument("--lock", required=True, type=Path, metavar="FILE", help="what the image holds")
    parser.add_argument("--base", required=True, help="name of the base image")
    parser.add_argument("--builder", required=True, help="what built it")
    parser.add_argument("--level", type=int, default=9, help="zstd level of the SIF")
    options = parser.parse_args(argv)

    digest = image_id(options.archive)
    sif = RECORD.parent / f"{options.flavour}-{digest[:ID_DIGITS]}.sif"
    record = sif.with_suffix(".json")
    if not whole(record):
        started = time.monotonic()
        build_sif(options.archive, sif, options.level)
        print(f"{sif}: {sif.stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
        built = {
            "flavour": options.flavour,
            "image_id": f"sha256:{digest}",
            "sif": str(sif),
            "sif_sha256": sha256(sif),
            "sif_bytes": sif.stat().st_size,
            "architecture": architecture(sif),
            "lock_sha256": sha256(options.lock),
            "base": options.base,
            "builder": options.builder,
        }
        write_json(record, built)
    write_json(RECORD, read_json(record))
    print(f"image id sha256:{digest}\n{sif} is the image of --use-singularity now ({RECORD})")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
