"""Which bytes a stage loads: the digest of each folder, worked out from its files and held against its manifest.

    with loaded.digests(artifact=..., model=..., baseline=...) as found:
        ...  # load and run: found["artifact"] is the digest of what lies there
    # leaving it raises UserError when a file was changed meanwhile

A file is read once in a run, at the speed of the disk or of one core's SHA-256, whichever is slower (docs/tracing.md
has figures). Its sum is kept beside the folder, under what the kernel says of the file: device, inode, size, and the
times of its last change. The last of these, ctime, no program can set; a file whose ctime is younger than the clock's
grain is read again, and so is every file at the start of the next run (``forget``). What this does not see: a clock
set back, a disk written to below the file system, and sums that were edited by hand together with the manifest.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError

MANIFEST = "manifest.json"
SETTLED_NS = 2_000_000_000  # a younger change may share its time with another one, on any file system
READERS = 4  # files that are read at once
SHOWN = 12  # digits of a digest in words


def short(digest: str) -> str:
    """The first digits of a digest, for a reader."""
    return digest[:SHOWN]


@contextlib.contextmanager
def digests(**folders: Path) -> Iterator[dict[str, str]]:
    """The digest of each folder by its role, from the bytes; ``model`` is the one that the others are made of.

    Raises UserError when a file is not the one that the folder's manifest lists, is not listed, or changes until the
    context is left; and when an artifact was made of another model than ``model``.
    """
    seen = {folder: _read(folder) for folder in dict.fromkeys(folders.values())}
    found = {role: _digest(folder, seen[folder]) for role, folder in folders.items()}
    for folder in seen:
        _check_origin(folder, folders["model"], found["model"])
    yield found
    for folder, before in seen.items():
        after = _read(folder, before)
        for name in before.keys() | after.keys():
            if before.get(name, {}).get("sha256") != after.get(name, {}).get("sha256"):
                raise UserError(f"{folder / name} was changed while it was in use: delete {folder} and run again")


def forget(results: Path) -> None:
    """Remove the sums that an earlier run kept under ``results``."""
    for path in results.rglob(_kept(Path("*")).name):
        path.unlink()


def corpus_digest(corpus: Mapping) -> str:
    """SHA-256 over what is scored of a corpus: where its documents begin, and its rows of text."""
    found = hashlib.sha256(json.dumps(corpus["documents"]).encode())
    for row in corpus["rows"]:
        found.update(f"\n{json.dumps(row)}".encode())
    return found.hexdigest()


def check_corpus(path: Path, corpus: Mapping) -> str:
    """The digest of the corpus read from ``path``; UserError unless it is the one that was written when it was made.

    All rows are read for it, once in a run.
    """
    with _sums(path) as kept:
        entry, state = kept.get(path.name, {}), _state(path)
        if entry.get("state") != state:
            entry = {"state": state, "read_ns": time.time_ns(), "sha256": corpus_digest(corpus)}
        kept.clear()
        kept.update({path.name: entry} if _settled(entry) else {})
    if entry["sha256"] != corpus.get("digest"):
        raise UserError(
            f"{path} was changed after it was fetched: its digest is {short(entry['sha256'])}, and it says "
            f"{short(corpus.get('digest') or 'nothing')}: delete it and run again"
        )
    return entry["sha256"]


def _digest(folder: Path, seen: Mapping[str, Mapping]) -> str:
    """The digest of the files ``seen`` in ``folder``; UserError unless the manifest says the same of each."""
    manifest = files.read_manifest(folder)
    for name in sorted(seen.keys() - manifest["files"].keys()):
        raise UserError(f"{folder / name} is not in {folder}/{MANIFEST}: remove it, or delete {folder} and run again")
    for name, entry in manifest["files"].items():
        if (found := seen[name]["sha256"]) != entry["sha256"]:
            raise UserError(
                f"{folder / name} was changed after it was made: its sha256 is {short(found)}, and {MANIFEST} has "
                f"{short(entry['sha256'])}: delete {folder} and run again"
            )
    found = files.digest({name: seen[name]["sha256"] for name in manifest["files"]})
    if found != manifest["digest"]:
        raise UserError(
            f"{folder}/{MANIFEST} was edited: the digest of the files that it lists is {short(found)}, and it says "
            f"{short(manifest['digest'])}: delete {folder} and run again"
        )
    return found


def _check_origin(folder: Path, model: Path, digest: str) -> None:
    """UserError when ``folder`` was made of another model than the one with this digest."""
    manifest = files.read_json(folder / MANIFEST)
    # a fetched artifact was made elsewhere, and a model of nothing
    made_of = manifest.get("model") or manifest.get("made_from")
    if folder != model and made_of and made_of != digest:
        raise UserError(
            f"{folder} was made of the model {short(made_of)}, and {model} is {short(digest)}: delete {folder} and run "
            "again"
        )


def _read(folder: Path, before: Mapping[str, Mapping] | None = None) -> dict[str, dict]:
    """{name: {"state", "read_ns", "sha256"}} of each file in ``folder``; of an unchanged one, what is known already.

    before: what was read earlier. The manifest is left out, and so are hidden files that it does not list, since
    nothing loads them.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}: let the workflow make it")
    listed = files.read_manifest(folder)["files"]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    names = sorted(name for name in names if name in listed or not _hidden(name))
    with _sums(folder) as kept:
        known, begun = {**kept, **(before or {})}, time.time_ns()
        states = {name: _state(folder / name) for name in names}
        found = {name: known[name] for name in names if known.get(name, {}).get("state") == states[name]}
        new = [name for name in names if name not in found]
        with ThreadPoolExecutor(READERS) as readers:
            for name, value in zip(new, readers.map(files.sha256, [folder / name for name in new]), strict=True):
                found[name] = {"state": states[name], "read_ns": begun, "sha256": value}
        for name in new:
            if _state(folder / name) != states[name]:
                raise UserError(f"{folder / name} was changed while it was read: delete {folder} and run again")
        kept.clear()
        kept.update({name: entry for name, entry in found.items() if _settled(entry)})
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _settled(entry: Mapping) -> bool:
    """Whether a change after the file was read would show in its state, whose last entry is its ctime."""
    return entry["read_ns"] - entry["state"][-1] > SETTLED_NS


def _state(path: Path) -> list[int]:
    """What the kernel says of a file and changes with its bytes; the time of change comes last, ns."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _kept(folder: Path) -> Path:
    """Where the sums of a folder's files are kept: beside it, since what lies in it is what is loaded."""
    return folder.with_name(f".{folder.name}.sha256.json")


@contextlib.contextmanager
def _sums(folder: Path) -> Iterator[dict]:
    """The sums kept of ``folder``, written back when the context is left; one process at a time reads a folder.

    Where the folder cannot be locked or written to, nothing is kept.
    """
    path, handle = _kept(folder), os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            keeps = os.access(folder.parent, os.W_OK)
        except OSError:  # a file system without locks
            keeps = False
        try:
            known = files.read_json(path) if keeps and path.is_file() else {}
        except ValueError:
            known = {}
        yield known
        if keeps:
            files.write_json(path, known)
    finally:
        os.close(handle)
