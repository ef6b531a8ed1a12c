"""Memory of this process, stage by stage: resident set on the CPU, the allocator's and the driver's figures on CUDA."""

import resource
from pathlib import Path

import psutil
import torch

KIND = {"cpu": "RSS high-water", "cuda": "CUDA allocator peak"}


class Watch:
    """Peaks of memory from one mark to the next, in bytes.

    On the CPU the kernel's high-water mark of the resident set is reset at each mark, where the kernel allows it;
    where it does not, a peak is the highest since the process began (``reset`` says which).
    """

    def __init__(self, device: str):
        self.device = device
        self.before = psutil.Process().memory_info().rss
        self.peaks: dict[str, int] = {}
        self.extra: dict[str, int] = {}
        self.reset = self._reset()

    def mark(self, stage: str) -> None:
        """Note the peak since the last mark under ``stage``."""
        if self.device == "cuda":
            self.peaks[stage] = torch.cuda.max_memory_allocated()
            self.extra[f"{stage}_reserved_bytes"] = torch.cuda.max_memory_reserved()
            self.extra[f"{stage}_device_process_bytes"] = device_process_bytes()
            self.extra[f"{stage}_host_peak_bytes"] = high_water()
        else:
            self.peaks[stage] = high_water()
        self._reset()

    def _reset(self) -> bool:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def result(self) -> dict:
        return {
            "kind": KIND[self.device],
            "before_load_bytes": self.before,
            "load_peak_bytes": self.peaks["load"],
            "decode_peak_bytes": self.peaks["decode"],
            "peak_reset": self.reset,
            **self.extra,
        }


def high_water() -> int:
    """Highest resident set of this process in bytes, since its start or the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_process_bytes() -> int:
    """What the driver counts as in use on the current GPU, in bytes: weights, cache, context and kernels."""
    free, total = torch.cuda.mem_get_info()
    return total - free
