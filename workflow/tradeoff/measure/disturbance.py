"""What others took of the machine while a sample was timed: the CPU time that this process wanted and did not get.

    with disturbance.Watch() as watch:
        ...                                  # the timed work
    watch.result()                           # raw seconds
    disturbance.share(watch.result())        # what others took, as a share of the time

Source of the readings: Linux, Documentation/scheduler/sched-stats.rst (/proc/<pid>/task/<tid>/schedstat: time on a
core, time spent waiting for one) and proc_pid_stat(5), proc_stat(5).
"""

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path

NANO = 1e9
TICK = os.sysconf("SC_CLK_TCK")
BUSY = (0, 1, 2, 5, 6)  # of /proc/stat: user, nice, system, irq, softirq
STEAL = 7
IDLE = 0.05  # of a core: less than that is no idle core


class Watch:
    """Context manager: CPU seconds of this process, its threads' waits, and what the rest of the machine did."""

    def __init__(self, proc: Path = Path("/proc")):
        self.proc = proc

    def __enter__(self) -> "Watch":
        self.before = self._read()
        return self

    def __exit__(self, *_) -> None:
        self.after = self._read()

    def _read(self) -> dict:
        times = [int(word) for word in (self.proc / "stat").read_text().splitlines()[0].split()[1:]]
        waited: dict[str, int] | None = {} if (self.proc / "self" / "schedstat").is_file() else None
        for task in (self.proc / "self" / "task").iterdir() if waited is not None else ():
            try:
                waited[task.name] = int((task / "schedstat").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
                continue
        return {
            "clock": time.perf_counter(),
            "cpu": time.process_time(),
            "waited": waited,
            "switches": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
            "busy": sum(times[place] for place in BUSY) / TICK,
            "steal": times[STEAL] / TICK,
        }

    def result(self) -> dict:
        """Seconds: ``wall_s``, ``cpu_s`` of this process, ``waited_s`` of its threads for a core (None where the kernel
        does not count it), ``others_s`` of other processes, ``steal_s`` of the hypervisor (all cores); ``cores`` of the
        machine, and ``switches`` that were not this process's own wish.
        """
        before, after = self.before, self.after
        passed = {name: after[name] - before[name] for name in ("clock", "cpu", "busy", "steal", "switches")}
        waited = None
        if after["waited"] is not None:
            waited = sum(time - before["waited"].get(name, 0) for name, time in after["waited"].items()) / NANO
        return {
            "wall_s": passed["clock"],
            "cpu_s": passed["cpu"],
            "waited_s": waited,
            "others_s": max(0.0, passed["busy"] - passed["cpu"]),
            "steal_s": passed["steal"],
            "cores": os.cpu_count(),
            "switches": passed["switches"],
        }


def share(found: Mapping) -> float:
    """Seconds of cores that others took from this process, over the seconds that passed.

    A thread waits for others only as long as others run: of a process's own threads, more than there are cores, one
    waits for another. Where waiting is not counted, others took what they ran if no core was left idle. What the
    hypervisor gave to other machines is lost too, to each process that ran by its part.
    """
    wall, others = found["wall_s"], found["others_s"]
    idle = found["cores"] * wall - found["cpu_s"] - others - found["steal_s"]
    waited = found["waited_s"] if found["waited_s"] is not None else others if idle < IDLE * wall else 0.0
    stolen = found["steal_s"] * found["cpu_s"] / max(found["cpu_s"] + others, 1e-9)
    return (min(waited, others) + stolen) / wall


def words(found: Mapping) -> str:
    """What others took, in words."""
    return f"others took {share(found):.0%} of a core's time"
