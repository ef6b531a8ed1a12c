"""Fixtures that more than one folder of tests uses."""

import os

# tiny models gain nothing from more threads, and threads that wait for a busy core cost minutes
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests import studies


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> studies.Study:
    """A tiny study that went through every stage once. Tests that change it take a copy."""
    study = studies.make(tmp_path_factory.mktemp("finished") / "checkout")
    study.snakemake()
    return study


@pytest.fixture
def study(finished, tmp_path) -> studies.Study:
    """A copy of the finished study, to edit."""
    return finished.copy(tmp_path / "checkout")
