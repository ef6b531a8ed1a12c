"""The state of an NVIDIA GPU while it is measured: clocks, power, temperature, and whether it throttled."""

import os
import threading
import time

import psutil

INTERVAL_S = 0.05
# reasons, of nvml's clock event reasons, that make a sample worthless: heat, power supply and hardware slowdown.
# The software power cap is left out: it is how a card of 70 W runs under load, and it is recorded.
SPOILS = {
    "hw_slowdown": 0x8,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
}
NOTED = {"idle": 0x1, "applications_clocks": 0x2, "sw_power_cap": 0x4, **SPOILS}


class Nvml:
    """The few readings that a sampler takes, from GPU ``index`` of the driver."""

    def __init__(self, index: int):
        import pynvml

        self.nvml = pynvml
        pynvml.nvmlInit()
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.since = time.time_ns() // 1000

    def read(self) -> dict:
        nvml, handle = self.nvml, self.handle
        return {
            "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "reasons": nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "others": self.others(),
        }

    def others(self) -> int | None:
        """How many other processes have worked on the GPU since it is watched; None where the driver does not say.

        Where this process is not among those that it lists (process ids of a container are other ones) none is known.
        """
        try:
            known = {process.pid for process in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)}
            if os.getpid() not in known:
                return None
            used = self.nvml.nvmlDeviceGetProcessUtilization(self.handle, self.since)
        except self.nvml.NVMLError:  # no reading in so short a time, or none on this card
            return None
        return sum(stranger(pid) for pid in {entry.pid for entry in used if entry.smUtil > 0})

    def free_bytes(self) -> int:
        return self.nvml.nvmlDeviceGetMemoryInfo(self.handle).free

    def close(self) -> None:
        self.nvml.nvmlShutdown()


def stranger(pid: int) -> bool:
    """Whether a process is neither this one nor a child of the same parent.

    A reading of use reaches back a second, into the turn of the partner, or of one that has ended.
    """
    try:
        return pid != os.getpid() and psutil.Process(pid).ppid() != os.getppid()
    except psutil.NoSuchProcess:
        return False


def free_bytes(index: int = 0) -> int | None:
    """Free memory of a GPU in bytes, asked of the driver without touching CUDA; None where it cannot be asked."""
    try:
        source = Nvml(index)
    except Exception:  # no driver library or no permission: NVML has a class for each of its codes
        return None
    try:
        return source.free_bytes()
    finally:
        source.close()


class Sampler:
    """Context manager: reads a CUDA device's state in the background; does nothing for the CPU or without NVML.

    device: a torch.device. source: for tests, an object with ``read`` and ``close``.
    """

    def __init__(self, device, source=None, interval_s: float = INTERVAL_S):
        self.interval_s = interval_s
        self.readings: list[dict] = []
        self.reason = None if device.type == "cuda" else "the CPU has no such sensors"
        self.source = source
        if self.source is None and self.reason is None:
            try:
                self.source = Nvml(device.index or 0)
            except Exception as error:  # no driver library or no permission: NVML has a class for each of its codes
                self.reason = f"NVML cannot be read: {type(error).__name__}: {error}"
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self) -> "Sampler":
        if self.source is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while True:
            try:
                self.readings.append(self.source.read())
            except Exception as error:  # a sensor that this card or a virtual one lacks
                self.reason = f"NVML reading failed: {type(error).__name__}: {error}"
                return
            if self._stop.wait(self.interval_s):
                return

    def __exit__(self, *_) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self.source.close()

    @property
    def throttled(self) -> bool:
        """Whether heat, the power supply or the hardware held the clocks down at any reading."""
        return any(reading["reasons"] & bits for reading in self.readings for bits in SPOILS.values())

    def summary(self) -> dict | None:
        """Least and greatest of each reading, reasons by name, ``throttled``, and how many ``others`` worked on it.

        None where there is nothing to read.
        """
        if not self.readings:
            return None if self.source is None else {"readings": 0, "throttled": False, "reason": self.reason}
        result: dict = {"readings": len(self.readings)}
        for key in ("sm_mhz", "memory_mhz", "power_w", "temperature_c"):
            values = [reading[key] for reading in self.readings]
            result[key] = [min(values), max(values)]
        seen = 0
        for reading in self.readings:
            seen |= reading["reasons"]
        result["reasons"] = [name for name, bits in NOTED.items() if seen & bits]
        result["throttled"] = self.throttled
        result["others"] = max((reading["others"] for reading in self.readings if reading.get("others")), default=0)
        if self.reason:
            result["reason"] = self.reason
        return result
