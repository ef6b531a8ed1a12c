"""The arithmetic of the roofline, on numbers worked out by hand."""

import pytest
import torch

from workflow.tradeoff.measure import roofline


def test_bytes_of_a_token():
    tied = {"weight_bytes": {"float16": 2_471_628_800}, "unread_bytes": 0}
    assert roofline.bytes_per_token(tied, 32_768 * 160) == 2_471_628_800 + 5_242_880
    untied = {"weight_bytes": {"float16": 2_200_096_768}, "unread_bytes": 131_072_000}
    assert roofline.bytes_per_token(untied, 0) == 2_069_024_768


def test_utilization():
    assert roofline.utilization(2.472e9, 748, 3.08e12) == pytest.approx(0.6003, abs=1e-3)


def test_busy_time_counts_overlap_once():
    assert roofline.busy_ns([(0, 10), (5, 15), (20, 30), (22, 25)]) == 25
    assert roofline.busy_ns([]) == 0


def test_profile_per_token():
    events = [
        ("gemv", 0, 600),
        ("norm", 700, 800),
        ("Memcpy DtoD", 900, 950),
        ("gemv", 1000, 1600),
        ("norm", 1700, 1800),
    ]
    found = roofline.profile_summary(events, launches=2, steps=2, wall_s=1e-6)
    assert found["kernels_per_token"] == 2 and found["copies_per_token"] == 0.5 and found["launches_per_token"] == 1
    assert found["busy_s_per_token"] == pytest.approx(725e-9)
    assert found["waiting_s_per_token"] == pytest.approx(275e-9)
    assert found["top"][0] == {"kernel": "gemv", "per_token": 1.0, "s_per_token": pytest.approx(600e-9)}


def test_bandwidth_of_this_machine(monkeypatch):
    monkeypatch.setitem(roofline.READ, "cpu", 1 << 24)
    found = roofline.measure_bandwidth("cpu", 1)
    assert found["bytes_per_s"] > 1e8 and found["bytes"] == 1 << 24 and "sums" in found["method"]


def test_no_profile_on_the_cpu():
    class Engine:
        device = torch.device("cpu")

    assert roofline.kernel_profile(Engine()) is None
