"""When memory runs out: which errors say so, and the bytes that were needed and those that there were."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.files import read_json
from workflow.tradeoff.variants import Variant

# of torch on the CPU and on a GPU, CUDA's libraries, ONNX Runtime, NumPy, C++, Rust, and the kernel's ENOMEM
WORDS = re.compile(
    r"out of memory|can(no|')t allocate memory|bad_alloc|failed to allocate memory|unable to allocate|_ALLOC_FAILED"
    r"|memory allocation of \d+ bytes failed|smaller than requested bytes|MemoryError",
    re.IGNORECASE,
)
NEEDED = re.compile(
    r"(?:tried to allocate|unable to allocate|buffer of size|requested bytes of|memory allocation of)"
    r" (\d+(?:\.\d+)?)(?: ([KMGTPE])iB)?",
    re.IGNORECASE,
)
POWERS = {letter: power for power, letter in enumerate("KMGTPE", start=1)}
HOST = re.compile("CPUAllocator|bad_alloc|MemoryError|Unable to allocate|Cannot allocate memory")
STORED_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
LENGTH = 300  # characters of a library's own words, which may go on to give advice


@dataclass(frozen=True)
class Available:
    """Bytes that can still be had, None where nothing tells, and what sets the limit."""

    size: int | None
    where: str

    def __str__(self) -> str:
        if self.size is None:
            return f"how many were available is not known ({self.where})"
        return f"{self.size:,} bytes were available ({self.where})"


def of(error: BaseException, variant: Variant, artifact: Path, device: str) -> CellFailure | None:
    """The failure of a cell that ``error`` stands for, when it is one of memory; None for any other.

    To be asked where the error is caught: what was allocated until then is still held.
    """
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if not says_so(words):
        return None
    host = device == "cpu" or HOST.search(words) or variant.option("provider") == "cpu"
    return failure(words, variant, artifact, on_host() if host else on_gpu())


def says_so(words: str) -> bool:
    """Whether an error's words, its type's name among them, are those of an allocation that failed."""
    return WORDS.search(words) is not None


def failure(words: str, variant: Variant, artifact: Path, available: Available) -> CellFailure:
    """``out_of_memory``, with the bytes that were needed and available, then the error's own ``words``."""
    size = needed_bytes(words)
    needed = least(variant, artifact) if size is None else f"one allocation needed {size:,} bytes"
    return CellFailure("out_of_memory", f"{needed}, {available}: {textwrap.shorten(words, LENGTH, placeholder=' …')}")


def needed_bytes(words: str) -> int | None:
    """Bytes of the allocation that failed, where the error names them."""
    found = NEEDED.search(words)
    if not found:
        return None
    number, unit = found.groups()
    return int(number) if unit is None and number.isdigit() else int(float(number) * 1024 ** POWERS.get(unit, 0))


def least(variant: Variant, artifact: Path) -> str:
    """In words, the bytes that a cell cannot do without: the weights that it loads, in the variant's precision."""
    files = [path for path in artifact.iterdir() if path.name.startswith("model") and path.suffix != ".json"]
    stored = sum(path.stat().st_size for path in files)
    if variant.artifact == "model":
        config = read_json(artifact / "config.json")
        stored = stored * variant.bits // STORED_BITS[config.get("dtype") or config["torch_dtype"]]
    return f"the weights alone need {stored:,} bytes"


def on_gpu() -> Available:
    """Free memory of the current GPU, as its driver counts it."""
    import torch

    try:
        return Available(torch.cuda.mem_get_info()[0], "the GPU's memory")
    except RuntimeError:
        return Available(None, "the GPU answers no more")


def on_host() -> Available:
    """What this process can still have of the host's memory: the least of what each limit leaves."""
    machine = Available(psutil.virtual_memory().available, "the machine's memory")
    return min([machine, *_address_space(), *_control_groups()], key=lambda available: available.size)


def _address_space() -> Iterator[Available]:
    limit, _ = psutil.Process().rlimit(psutil.RLIMIT_AS)
    if limit != psutil.RLIM_INFINITY:
        left = limit - psutil.Process().memory_info().vms
        yield Available(max(left, 0), f"the address space of ulimit -v, {limit:,}")


def _control_groups(
    root: Path = Path("/sys/fs/cgroup"), table: Path = Path("/proc/self/cgroup")
) -> Iterator[Available]:
    """What the limits of this process's control groups leave, a container's among them; page cache counts as free."""
    for line in table.read_text().splitlines() if table.is_file() else ():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # in a container the name may be one of the host's tree, of which only the top is seen
        folder = top / name.strip("/")
        while folder != root.parent and folder.is_relative_to(top):
            yield from _control_group(folder, *names)
            folder = folder.parent


def _control_group(folder: Path, limit_name: str, used_name: str, cache_name: str) -> Iterator[Available]:
    if not (folder / limit_name).is_file() or (limit := (folder / limit_name).read_text().strip()) == "max":
        return
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / used_name).read_text()) - int(statistics[cache_name])
    yield Available(max(int(limit) - used, 0), f"the control group's limit of {int(limit):,}")
