"""The sampler over a driver that is a fake."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from workflow.tradeoff.measure import telemetry

CUDA = torch.device("cuda", 0)


class Fake:
    def __init__(self, *reasons, fails=False):
        self.reasons = list(reasons)
        self.fails = fails
        self.closed = False

    def read(self):
        if self.fails:
            raise RuntimeError("Not Supported")
        reasons = self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]
        return {"sm_mhz": 1000 + reasons, "memory_mhz": 2600, "power_w": 300.0, "temperature_c": 50, "reasons": reasons}

    def close(self):
        self.closed = True


def sampled(source):
    with telemetry.Sampler(CUDA, source, interval_s=0.001) as sampler:
        time.sleep(0.02)
    return sampler


def test_a_quiet_run():
    source = Fake(0)
    sampler = sampled(source)
    found = sampler.summary()
    assert not sampler.throttled and not found["throttled"] and source.closed
    assert found["readings"] >= 2 and found["sm_mhz"] == [1000, 1000] and found["reasons"] == []


def test_heat_at_one_reading_spoils_the_sample():
    sampler = sampled(Fake(0, 0x20, 0))
    assert sampler.throttled
    assert sampler.summary()["reasons"] == ["sw_thermal"]
    assert sampler.summary()["sm_mhz"] == [1000, 1032]


def test_a_power_cap_is_noted_and_kept():
    sampler = sampled(Fake(0x4))
    assert not sampler.throttled
    assert sampler.summary()["reasons"] == ["sw_power_cap"]


def test_a_sensor_that_fails_is_said():
    found = sampled(Fake(0, fails=True)).summary()
    assert found == {"readings": 0, "throttled": False, "reason": "NVML reading failed: RuntimeError: Not Supported"}


def test_other_processes_that_work_on_the_gpu_are_counted():
    class Shared(Fake):
        counts = iter((None, 0, 2))

        def read(self):
            return {**super().read(), "others": next(self.counts, 0)}

    assert sampled(Shared(0)).summary()["others"] == 2
    assert sampled(Fake(0)).summary()["others"] == 0


class Driver:
    """Of NVML what counting others takes: processes on the card by id, and how busy each was."""

    NVMLError = RuntimeError

    def __init__(self, listed, busy):
        self.listed, self.busy = listed, busy

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid) for pid in self.listed]

    def nvmlDeviceGetProcessUtilization(self, handle, since):
        if self.busy is None:
            raise RuntimeError("Not Found")
        return [SimpleNamespace(pid=pid, smUtil=share) for pid, share in self.busy.items()]


@pytest.mark.parametrize(
    ("listed", "busy", "expected"),
    [
        ([os.getpid(), 1], {os.getpid(): 90, 1: 0}, 0),  # it is there, and idle
        ([os.getpid(), 1], {os.getpid(): 50, 1: 40}, 1),
        ([os.getpid(), 2**22 + 1], {2**22 + 1: 40}, 0),  # one that has ended
        ([3, 4], {3: 50, 4: 40}, None),  # a container's own process ids
        ([os.getpid()], None, None),
    ],
)
def test_who_the_others_are(listed, busy, expected):
    source = telemetry.Nvml.__new__(telemetry.Nvml)
    source.nvml, source.handle, source.since = Driver(listed, busy), None, 0
    assert source.others() == expected


def test_the_partner_is_no_stranger():
    sibling = subprocess.Popen(["sleep", "9"])
    code = "from workflow.tradeoff.measure import telemetry; print(telemetry.stranger({}), telemetry.stranger(1))"
    try:
        done = subprocess.run([sys.executable, "-c", code.format(sibling.pid)], capture_output=True, text=True)
    finally:
        sibling.kill()
        sibling.wait()
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_the_cpu_has_none():
    with telemetry.Sampler(torch.device("cpu")) as sampler:
        pass
    assert sampler.summary() is None and not sampler.throttled


def test_without_a_driver_nothing_is_read():
    if torch.cuda.is_available():
        return
    with telemetry.Sampler(CUDA) as sampler:
        pass
    assert sampler.summary() is None and "NVML cannot be read" in sampler.reason
