"""Fixtures that more than one folder of tests uses."""

import os

# tiny models gain nothing from more threads, and threads that wait for a busy core cost minutes
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fcntl
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests import studies
from workflow.tradeoff.variants import VARIANTS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, which makes the finished study; then what can run meanwhile; then what waits for it."""
    waiting = {item.path for item in items if "finished" in item.fixturenames}
    items.sort(key=lambda item: (item.path.name != "test_interrupt.py", item.path in waiting))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random weights in every run: a test that fails fails again."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test defines beside the presets is gone after it, whichever test runs next in this process."""
    before = set(VARIANTS)
    yield
    for name in set(VARIANTS) - before:
        del VARIANTS[name]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> studies.Study:
    """A tiny study that went through every stage once, made by one of the workers; tests that change it take a copy."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished" / "checkout"
    folder.parent.mkdir(exist_ok=True)
    study, done = studies.Study(folder), folder.parent / "done"
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            study = studies.make(folder)
            study.snakemake(PYTHONDONTWRITEBYTECODE="1")  # as images often have it
            done.touch()
    return study


@pytest.fixture
def study(finished, tmp_path) -> studies.Study:
    """A copy of the finished study, to edit."""
    return finished.copy(tmp_path / "checkout")
