"""How close a decode step comes to the memory's limit: measured bandwidth, bytes a token must read, kernels launched.

Model bandwidth utilization (MBU) = bytes per token × tokens per second ÷ bandwidth, as gpt-fast counts it. The
bandwidth is measured in the same process as the samples, never taken from a datasheet.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping

import torch

READ = {"cpu": 1 << 29, "cuda": 1 << 32}  # bytes of one read: many times any cache
REPEATS = 7
PROMPT = 32  # tokens before the profiled steps
STEPS = 8  # profiled decode steps
NAMES = 6  # kernels that a profile names


def bytes_per_token(proof: Mapping, cache_bytes: int) -> int:
    """Bytes that one decoded token must read: every weight once, and the keys and values of ``cache_bytes``.

    proof: of an engine; its ``unread_bytes`` are tables of which a token reads one row (position table, and an input
    embedding that is not the head's weight too).
    """
    return sum(proof["weight_bytes"].values()) - proof.get("unread_bytes", 0) + cache_bytes


def utilization(read: float, tokens_per_s: float, bandwidth: float) -> float:
    """MBU, a share: bytes read per token × tokens per second ÷ bytes per second."""
    return read * tokens_per_s / bandwidth


def measure_bandwidth(device: str, threads: int) -> dict:
    """Read bandwidth of the device's memory: ``bytes_per_s``, ``bytes`` of one read and ``method``.

    The best of some sums over a float32 vector far larger than any cache; it takes at most a quarter of what is free.
    """
    size = READ[device]
    if device == "cuda":
        size = min(size, torch.cuda.mem_get_info()[0] // 4)
    else:
        torch.set_num_threads(threads)
    vector = torch.ones(size // 4, dtype=torch.float32, device=device)
    seconds = min(_sum_seconds(vector) for _ in range(REPEATS))
    return {
        "bytes_per_s": 4 * vector.numel() / seconds,
        "bytes": 4 * vector.numel(),
        "method": f"best of {REPEATS} float32 sums over {4 * vector.numel() / 1e9:.2f} GB",
    }


def _sum_seconds(vector: torch.Tensor) -> float:
    if vector.device.type == "cpu":
        start = time.perf_counter()
        vector.sum()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    vector.sum()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def kernel_profile(engine) -> dict | None:
    """What a decode step launches on the GPU, and how long the device works and waits; None on the CPU, or where
    these steps do not fit the model's context.

    The profiler slows the launches down, so the wall time of a step is taken without it.
    """
    if engine.device.type != "cuda":
        return None
    room = engine.context - 3 * STEPS
    if room < 1:
        return None
    token = engine.prefill(torch.arange(1, min(PROMPT, room) + 1)[None])
    walls = []
    for _ in range(2 * STEPS):  # the first half warms up
        engine.synchronize()
        start = time.perf_counter()
        token = engine.decode(token)
        engine.synchronize()
        walls.append(time.perf_counter() - start)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            token = engine.decode(token)
            engine.synchronize()
    events = profiler.profiler.kineto_results.events()
    device = torch.autograd.DeviceType.CUDA
    on_device = [
        (event.name(), event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.device_type() == device
    ]
    launches = sum("Launch" in event.name() for event in events if event.device_type() != device)
    return profile_summary(on_device, launches, STEPS, statistics.median(walls[STEPS:]))


def profile_summary(events: Iterable[tuple[str, int, int]], launches: int, steps: int, wall_s: float) -> dict:
    """Per token: kernels, copies, launch calls, seconds the device is busy and waits; and the longest kernels.

    events: (name, start, end) in nanoseconds, of the device alone, over ``steps`` decode steps. wall_s: seconds of
    one step without the profiler.
    """
    kernels, copies = [], []
    for event in events:
        (copies if event[0].startswith(("Memcpy", "Memset")) else kernels).append(event)
    busy = busy_ns([(start, end) for _, start, end in kernels + copies]) / 1e9 / steps
    spent: Counter = Counter()
    for name, start, end in kernels:
        spent[name] += end - start
    counts = Counter(name for name, _, _ in kernels)
    return {
        "steps": steps,
        "kernels_per_token": len(kernels) / steps,
        "copies_per_token": len(copies) / steps,
        "launches_per_token": launches / steps,
        "wall_s_per_token": wall_s,
        "busy_s_per_token": busy,
        "waiting_s_per_token": max(0.0, wall_s - busy),
        "top": [
            {"kernel": name[:120], "per_token": counts[name] / steps, "s_per_token": total / 1e9 / steps}
            for name, total in spent.most_common(NAMES)
        ],
    }


def busy_ns(intervals: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals (start, end)."""
    total, reached = 0, None
    for start, end in sorted(intervals):
        if reached is None or start > reached:
            total += end - start
            reached = end
        elif end > reached:
            total += end - reached
            reached = end
    return total
