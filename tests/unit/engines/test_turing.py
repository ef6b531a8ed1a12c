"""The cuda lock holds kernels for a T4: the record that check_turing.py wrote is of the very wheels that are locked."""

import importlib.util
import json
import re
import struct
from pathlib import Path

import pytest

ENVS = Path(__file__).parents[3] / "envs"
spec = importlib.util.spec_from_file_location("check_turing", ENVS / "check_turing.py")
turing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(turing)


def entry(kind: int, architecture: int, payload: bytes) -> bytes:
    """One entry of a fatbin container, with a header of 64 bytes as the toolkit writes it."""
    return struct.pack("<HHIQ12xI", kind, 0x101, 64, len(payload), architecture).ljust(64, b"\0") + payload


def container(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(path: Path, **sections: bytes) -> Path:
    """A shared library with these sections, each named with a dot in front, and nothing else."""
    names = b"\0" + b"".join(f".{name}\0".encode() for name in sections) + b".shstrtab\0"
    at, body, headers = 64, b"", [bytes(64)]
    for name, content in {**sections, "shstrtab": names}.items():
        start = names.index(f".{name}\0".encode())
        headers.append(struct.pack("<IIQQQQIIQQ", start, 1, 0, 0, at + len(body), len(content), 0, 0, 1, 0))
        body += content
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, at + len(body), 0, 64, 0, 0, 64, len(headers), len(headers) - 1
    )
    path.write_bytes(ident + head + body + b"".join(headers))
    return path


def test_targets_of_every_container(tmp_path):
    kernels = container(entry(2, 70, b"x" * 24), entry(2, 75, b"y" * 8)) + bytes(40) + container(entry(1, 90, b"ptx "))
    library = elf(tmp_path / "lib.so", text=b"code", nv_fatbin=kernels)
    assert turing.architectures(library) == {"compute_90": 1, "sm_70": 1, "sm_75": 1}


def test_a_magic_number_outside_the_section_is_no_kernel(tmp_path):
    library = elf(tmp_path / "lib.so", text=container(entry(2, 75, b"z")), nv_fatbin=container(entry(2, 90, b"z")))
    assert turing.architectures(library) == {"sm_90": 1}


def test_a_library_without_device_code(tmp_path):
    assert turing.architectures(elf(tmp_path / "lib.so", text=b"code")) == {}


def test_a_real_library():
    bitsandbytes = importlib.util.find_spec("bitsandbytes")
    library = Path(bitsandbytes.origin).parent / "libbitsandbytes_cuda128.so"
    assert {"sm_75", "sm_80", "sm_90"} <= set(turing.architectures(library))


def test_packages_without_turing_kernels_are_refused(tmp_path, capsys):
    for pattern in turing.LIBRARIES.values():
        library = tmp_path / pattern.replace("\\", "")
        library.parent.mkdir(parents=True, exist_ok=True)
        elf(library, nv_fatbin=container(entry(2, 75 if "torch" in pattern else 90, b"z")))
    with pytest.raises(SystemExit, match="no sm_75 kernels in onnxruntime_gpu, bitsandbytes"):
        turing.main([str(tmp_path)])


@pytest.mark.parametrize("package", turing.LIBRARIES)
def test_the_locked_wheel_is_the_one_that_was_read(package):
    recorded = json.loads((ENVS / "turing.json").read_text())[package]
    assert recorded["kernels"]["sm_75"] > 0
    lock = (ENVS / "cuda.lock").read_text()
    pinned = re.search(rf"^{package.replace('_', '-')}==(\S+)( \\\n    --hash=\S+)+", lock, re.MULTILINE)
    assert f"--hash=sha256:{recorded['sha256']}" in pinned.group(0)
    assert recorded["wheel"].startswith(f"{package}-{pinned.group(1)}-")


def test_the_downloaded_wheels_are_as_recorded():
    wheels = ENVS.parent / "wheels" / "cuda"
    if not any(wheels.glob("torch-*.whl")):
        pytest.skip("wheels/cuda is empty: `make image FLAVOUR=cuda` fills it")
    assert turing.of_wheels(wheels) == json.loads((ENVS / "turing.json").read_text())
