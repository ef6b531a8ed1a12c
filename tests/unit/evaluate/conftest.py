"""Fixtures of the tests of a cell's evaluation."""

import pytest


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    from tests import tiny
    from workflow.tradeoff import files

    folder = tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")
    files.write_manifest(folder, source={})
    return folder


@pytest.fixture
def stage(llama, tmp_path):
    from tests.unit.evaluate.stage import Stage

    return Stage(llama, tmp_path)
