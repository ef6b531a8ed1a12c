"""What the tests of ``fetch`` share: wheels made by code, and the check that a refusal leaves nothing behind."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.__main__ import main as fetch_main

ZERO = "0" * 64


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, name: str, version: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with ``members``, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    texts = members | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in texts.items():
            archive.writestr(member, data)
    return path


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder of wheels that is the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def refused(kind: str, source: dict, folder: Path, *words: str, name: str = "thing") -> str:
    """Fetch ``source``, which must end in one line with ``words`` and leave nothing in the folder of results."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    output = results / (name if kind == "model" else f"{name}.json")
    with pytest.raises(UserError) as caught:
        fetch_main([kind, "--name", name, "--source", json.dumps(source), "--output", str(output)])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert list(results.iterdir()) == []
    return message
