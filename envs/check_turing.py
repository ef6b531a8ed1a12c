"""Show that the packages of envs/cuda.lock hold kernels for a T4: compute capability 7.5 (Turing).

    python envs/check_turing.py wheels/cuda            the wheels that `make image` downloaded
    python envs/check_turing.py --write wheels/cuda    and record them in envs/turing.json, after a pin was raised
    python envs/check_turing.py /opt/venv/lib/python3.11/site-packages      inside the image

Device code lies in the ELF section ``.nv_fatbin`` of a shared library: containers that open with a magic number, each
a row of entries with a kind (1 PTX, 2 machine code) and an architecture (75 for sm_75), compressed or not. The layout
is that of ``fatbinary_section.h`` in the CUDA toolkit and of `cuobjdump --list-elf`, which this replaces; it needs
neither a GPU nor the toolkit.
"""

import argparse
import hashlib
import json
import mmap
import re
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

TURING = "sm_75"
RECORD = Path(__file__).parent / "turing.json"
# package: the library with its own kernels
LIBRARIES = {
    "torch": r"torch/lib/libtorch_cuda\.so",
    "onnxruntime_gpu": r"onnxruntime/capi/libonnxruntime_providers_cuda\.so",
    "bitsandbytes": r"bitsandbytes/libbitsandbytes_cuda128\.so",
}
MAGIC = struct.pack("<I", 0xBA55ED50)
CONTAINER = struct.Struct("<IHHQ")  # magic, version, header bytes, bytes of the entries
ENTRY = struct.Struct("<HHIQ12xI")  # kind, version, header bytes, payload bytes, …, architecture
KINDS = {1: "compute", 2: "sm"}


def section(elf: mmap.mmap, name: bytes) -> tuple[int, int]:
    """Offset and bytes of a section of a little-endian 64-bit ELF file; (0, 0) when there is none."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a little-endian 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + index * size) for index in range(count)]
    strings = headers[names][4]
    for header in headers:
        start = strings + header[0]
        if elf[start : start + len(name) + 1] == name + b"\0":
            return header[4], header[5]
    return 0, 0


def entries(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Kind and architecture of every entry of every fatbin container between two offsets."""
    at = data.find(MAGIC, start, end)
    while at != -1:
        _, _, header, size = CONTAINER.unpack_from(data, at)
        entry, last = at + header, min(at + header + size, end)
        while entry + ENTRY.size <= last:
            kind, _, entry_header, payload, architecture = ENTRY.unpack_from(data, entry)
            if kind not in KINDS or not entry_header:
                break
            yield kind, architecture
            entry += entry_header + payload
        at = data.find(MAGIC, max(last, at + header), end)


def architectures(library: Path) -> dict[str, int]:
    """Kernel images per target of a shared library: sm_75 is machine code, compute_90 is PTX."""
    found: dict[str, int] = {}
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        offset, size = section(elf, b".nv_fatbin")
        for kind, architecture in entries(elf, offset, offset + size):
            target = f"{KINDS[kind]}_{architecture}"
            found[target] = found.get(target, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (item[0].split("_")[0], int(item[0].split("_")[1]))))


def of_wheels(folder: Path) -> dict[str, dict]:
    """For each package its wheel, the wheel's sha256, and the architectures of its library."""
    found = {}
    for package, pattern in LIBRARIES.items():
        wheels = sorted(folder.glob(f"{package}-*.whl"))
        if len(wheels) != 1:
            sys.exit(
                f"error: {folder} holds {len(wheels)} wheels of {package}, not one: run make image FLAVOUR=cuda first"
            )
        with zipfile.ZipFile(wheels[0]) as wheel, tempfile.TemporaryDirectory() as temporary:
            member = next((name for name in wheel.namelist() if re.fullmatch(pattern, name)), None)
            if member is None:
                sys.exit(f"error: {wheels[0]} has no {pattern}")
            kernels = architectures(Path(wheel.extract(member, temporary)))
        with open(wheels[0], "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[package] = {"wheel": wheels[0].name, "sha256": digest, "library": member, "kernels": kernels}
    return found


def of_packages(folder: Path) -> dict[str, dict]:
    """The same for installed packages, without wheels and digests."""
    found = {}
    for package, pattern in LIBRARIES.items():
        library = folder / pattern.replace("\\", "")
        if not library.is_file():
            sys.exit(f"error: {library} is not there: {folder} is no site-packages of the cuda flavour")
        found[package] = {"library": str(library.relative_to(folder)), "kernels": architectures(library)}
    return found


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="wheels, or site-packages")
    parser.add_argument("--write", action="store_true", help=f"record what was found in {RECORD.name}")
    options = parser.parse_args(argv)
    wheels = any(options.folder.glob("*.whl"))
    found = of_wheels(options.folder) if wheels else of_packages(options.folder)
    for package, entry in found.items():
        print(f"{package}: {entry['library']}: {' '.join(entry['kernels'])}")
    without = [package for package, entry in found.items() if TURING not in entry["kernels"]]
    if without:
        sys.exit(f"error: no {TURING} kernels in {', '.join(without)}: a T4 cannot run it; see envs/README.md")
    if options.write and wheels:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
