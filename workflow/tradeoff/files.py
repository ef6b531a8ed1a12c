"""Files that are whole or absent: atomic writes, digests, and the manifest of an artifact."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from workflow.tradeoff.errors import CellFailure, UserError

CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is renamed to ``path``, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: savers of libraries choose the format by it
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a fresh folder beside ``path``; on success it replaces ``path``, else it is removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path | str, data) -> None:
    """Write ``data`` as indented JSON; NaN and infinities are refused, since no reader agrees on them."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str):
    return json.loads(Path(path).read_text())


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest(sums: Mapping[str, str]) -> str:
    """One digest of several files, {name: sha256}: SHA-256 over their ``sha256  name`` lines, as sha256sum has them."""
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sums.items()).encode()).hexdigest()


def check_disk(folder: Path | str, needed: int, what: str) -> None:
    """Raise UserError unless ``needed`` bytes are free where ``folder`` is, or will be."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {needed / 1e9:.2f} GB in {folder} and {free / 1e9:.2f} GB are free: "
            "free some space or move the results folder"
        )


def write_manifest(folder: Path, *, source: dict, made_from: str | None = None, **facts) -> dict:
    """Write ``manifest.json`` for every other file under ``folder``.

    source: where the bytes come from (JSON-able). made_from: digest of the manifest of the artifact
    that this one was made from. facts: whatever else a reader must know (parameters, parity, ...).
    Returns the manifest; its ``digest`` is ``digest`` of the files, sorted by their paths.
    """
    files = {
        str(path.relative_to(folder)): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    manifest = {
        "digest": digest({name: entry["sha256"] for name, entry in files.items()}),
        "source": source,
        "made_from": made_from,
        **facts,
        "files": files,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def read_manifest(folder: Path) -> dict:
    """The manifest of an artifact; UserError when a listed file is missing or has another size."""
    manifest = read_json(folder / "manifest.json")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise UserError(f"{path} is not the file that {folder}/manifest.json lists: delete {folder} and run again")
    return manifest


def write_failure(folder: Path, failure: CellFailure, source: dict) -> None:
    """An artifact that could not be made: a manifest without files, with the status and reason of its cells.

    source: the step that failed. A reason that names the temporary folder names the final one instead.
    """
    with atomic_folder(folder) as temporary:
        reason = failure.reason.replace(str(temporary), str(folder))
        write_manifest(temporary, source=source, status=failure.status, reason=reason)


def made(folder: Path) -> dict:
    """``read_manifest`` of an artifact that was made; CellFailure with what its making said when it failed."""
    manifest = read_manifest(folder)
    if manifest.get("status", "ok") != "ok":
        raise CellFailure(manifest["status"], manifest["reason"])
    return manifest
