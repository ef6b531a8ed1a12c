"""A study of three small models, summarized and decided once for these tests."""

import json

import pytest

from tests import synthetic
from workflow.tradeoff.decide import decision as decide
from workflow.tradeoff.decide.__main__ import main as decide_main
from workflow.tradeoff.summarize.__main__ import main as summarize_main


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("decide")
    faults = {("tiny-b", "onnx-int8-kv"): "not_quantized", ("tiny-b", "bnb-nf4"): "other_machine"}
    study = synthetic.write(root / "study", models=3, faults=faults)
    summarize_main(study.flags(root / "tables"))
    flags = ["--tables", root / "tables", "--environment", study.environment, "--output", root / "tables"]
    decide_main(list(map(str, flags)))
    return root / "tables"


@pytest.fixture(scope="session")
def decision(folder):
    return json.loads((folder / "decision.json").read_text())


@pytest.fixture(scope="session")
def rows(folder):
    return decide.read(folder)[0]
