"""What others took: read from files of the kernel, and told from what a process's own threads take from each other."""

import threading
import time

import pytest

from workflow.tradeoff.measure import disturbance

QUIET = {"wall_s": 1.0, "cpu_s": 2.0, "waited_s": 0.0, "others_s": 0.0, "steal_s": 0.0, "cores": 2, "switches": 0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.0),
        ({"waited_s": 0.3, "others_s": 0.8}, 0.3),
        ({"waited_s": 0.9, "others_s": 0.0}, 0.0),  # its own threads, more than there are cores
        ({"waited_s": 0.0, "others_s": 0.9}, 0.0),  # on a core that it did not want
        ({"steal_s": 0.2}, 0.2),
        ({"steal_s": 0.2, "others_s": 30.0, "cores": 64}, 0.0125),  # on a large machine mostly from others
        ({"waited_s": None, "others_s": 0.4, "cpu_s": 1.6}, 0.4),  # a kernel that does not count waits: no idle core
        ({"waited_s": None, "others_s": 0.4, "cpu_s": 1.0}, 0.0),
    ],
)
def test_the_share_that_others_took(change, expected):
    assert disturbance.share(QUIET | change) == pytest.approx(expected)


def proc(folder, busy, steal, waits):
    """A /proc with CPU times in ticks and threads with their waits in nanoseconds."""
    for name, wait in waits.items():
        task = folder / "self" / "task" / name
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(f"5 {wait} 1\n")
    (folder / "self" / "schedstat").write_text("0 0 0\n")
    (folder / "stat").write_text(f"cpu  {busy} 0 0 1000 50 0 0 {steal} 0 0\ncpu0 1 1 1\n")


def test_readings(tmp_path):
    proc(tmp_path, busy=1000, steal=10, waits={"1": 10**9, "2": 0})
    with disturbance.Watch(tmp_path) as watch:
        proc(tmp_path, busy=1000 + 2 * disturbance.TICK, steal=10, waits={"1": 15 * 10**8, "3": 10**8})
    found = watch.result()
    assert found["waited_s"] == pytest.approx(0.6) and found["steal_s"] == 0
    assert found["others_s"] == pytest.approx(2 - found["cpu_s"])


def test_own_threads_are_no_disturbance():
    """Threads that fight for the interpreter's lock and the cores take these from each other only."""
    stop = time.perf_counter() + 0.1
    with disturbance.Watch() as watch:
        threads = [threading.Thread(target=lambda: [None for _ in iter(lambda: time.perf_counter() > stop, True)])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = watch.result()
    assert found["cpu_s"] > 0 and disturbance.share(found) <= (found["others_s"] + found["steal_s"]) / found["wall_s"]
