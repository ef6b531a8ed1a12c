"""Energy is read off the machine's own counters, or it is absent with the reason."""

from types import SimpleNamespace

import pytest

from workflow.tradeoff.measure import energy

CPU, CUDA = SimpleNamespace(type="cpu", index=None), SimpleNamespace(type="cuda", index=0)


@pytest.fixture
def powercap(tmp_path):
    """A sysfs with one package, a part of it, and the platform; a function that sets a counter."""

    def put(zone, joules):
        (tmp_path / zone).mkdir(exist_ok=True)
        (tmp_path / zone / "energy_uj").write_text(f"{joules * 1_000_000}\n")

    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        put(zone, 10)
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("99999999\n")
    return tmp_path, put


def clock(*times):
    return iter(times).__next__


def test_a_package_is_read_once_and_its_parts_are_not_added(powercap):
    root, put = powercap
    with energy.Meter(CPU, lambda: energy.Rapl(root), clock(0.0, 2.0)) as meter:
        put("intel-rapl:0", 40)
        put("intel-rapl:0:0", 90)
    assert meter.result() == {"joules": 30, "seconds": 2, "source": "RAPL: package-0"}


def test_a_counter_that_starts_anew_loses_nothing(powercap):
    root, put = powercap
    put("intel-rapl:0", 95)
    with energy.Meter(CPU, lambda: energy.Rapl(root), clock(0.0, 1.0)) as meter:
        put("intel-rapl:0", 5)
    assert meter.result()["joules"] == pytest.approx(10)


def nvml(readings):
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )


def test_a_card_counts_millijoules():
    library = nvml(iter([0, 1000, 71000]))
    with energy.Meter(CUDA, lambda: energy.Nvml(0, library), clock(0.0, 1.0)) as meter:
        """Nothing but the time that passes."""
    assert meter.result() == {"joules": 70, "seconds": 1, "source": "NVML: the card"}


def test_where_nothing_measures_it_the_reason_is_said_and_nothing_estimated(tmp_path):
    result = energy.idle(CPU, lambda: energy.Rapl(tmp_path))
    assert set(result) == {"reason"} and "the kernel shows no RAPL package" in result["reason"]
    with energy.Meter(CUDA, lambda: energy.Nvml(0, nvml(iter([])))) as meter:
        """Nothing."""
    assert "nothing measures it here: StopIteration" in meter.result()["reason"]


def test_a_moment_is_too_short_for_a_counter(powercap):
    with energy.Meter(CPU, lambda: energy.Rapl(powercap[0]), clock(0.0, 0.03)) as meter:
        """Nothing."""
    assert meter.result() == {"reason": "30 ms are too short for RAPL: package-0"}
