"""The sampler over a driver that is a fake."""

import time

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
