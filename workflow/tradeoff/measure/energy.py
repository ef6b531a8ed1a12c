"""Energy while something runs: NVML's counter of a GPU, or RAPL's of a CPU's packages. Read, never estimated.

    with energy.Meter(device) as meter:
        ...
    meter.result()     {"joules": 12.3, "seconds": 1.5, "source": "RAPL: package-0"}, or {"reason": "…"}

A counter is the whole card's or package's: what else draws there is in it, so ``idle`` is measured beside it.
NVML: nvmlDeviceGetTotalEnergyConsumption, mJ since the driver was loaded, Volta and later. RAPL: energy_uj of
/sys/class/powercap, which starts anew at max_energy_range_uj, and which many systems let only root read.
"""

import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
SHORTEST_S = 0.1  # counters step every few ms, NVML's up to 100: below it a reading says nothing
IDLE_S = 1.0


class Rapl:
    """The packages below ``root``; OSError where none can be read."""

    def __init__(self, root: Path = POWERCAP):
        zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self.zones = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        if not self.zones:
            raise FileNotFoundError(f"the kernel shows no RAPL package in {root}")
        self.source = "RAPL: " + ", ".join((zone / "name").read_text().strip() for zone in self.zones)
        self.ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self.zones]
        self.read()

    def read(self) -> list[int]:
        """Microjoules of each package."""
        return [int((zone / "energy_uj").read_text()) for zone in self.zones]

    def joules(self, before: list[int], after: list[int]) -> float:
        spent = [(end - start) % (full + 1) for start, end, full in zip(before, after, self.ranges, strict=True)]
        return sum(spent) / 1e6


class Nvml:
    """The counter of GPU ``index``."""

    def __init__(self, index: int, library=None):
        if library is None:
            import pynvml as library
        library.nvmlInit()
        self.library, self.handle = library, library.nvmlDeviceGetHandleByIndex(index)
        self.source = "NVML: the card"
        self.read()

    def read(self) -> int:
        """Millijoules."""
        return self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)

    def joules(self, before: int, after: int) -> float:
        return (after - before) / 1e3


def opened(device, make: Callable | None = None):
    """(counter, None) for a torch.device, or (None, why nothing measures it)."""
    make = make or (Rapl if device.type == "cpu" else lambda: Nvml(device.index or 0))
    try:
        return make(), None
    except Exception as error:  # NVML has a class for each of its codes; the kernel's files fail in many ways
        return None, f"nothing measures it here: {type(error).__name__}: {error}"


class Meter:
    """Context manager around what is measured; ``make`` stands in for the device's own counter."""

    def __init__(self, device, make: Callable | None = None, clock: Callable[[], float] = time.perf_counter):
        self.counter, self.reason = opened(device, make)
        self.clock = clock

    def __enter__(self) -> "Meter":
        if self.counter:
            self.before, self.start = self.counter.read(), self.clock()
        return self

    def __exit__(self, *_) -> None:
        if self.counter:
            self.seconds, self.after = self.clock() - self.start, self.counter.read()

    def result(self) -> dict:
        if self.reason:
            return {"reason": self.reason}
        if self.seconds < SHORTEST_S:
            return {"reason": f"{self.seconds * 1e3:.0f} ms are too short for {self.counter.source}"}
        joules = self.counter.joules(self.before, self.after)
        return {"joules": joules, "seconds": self.seconds, "source": self.counter.source}


def idle(device, make: Callable | None = None, seconds: float = IDLE_S) -> dict:
    """The same of a while in which this process only waits: what the machine draws beside it, with the model loaded."""
    with Meter(device, make) as meter:
        if meter.counter:
            time.sleep(seconds)
    return meter.result()
