"""The studies for a GPU: their plan is shown on any machine, and a run without a card ends before any download."""

import pytest
import yaml

from tests import studies
from workflow.tradeoff.run import preflight
from workflow.tradeoff.variants import VARIANTS

# rows of the published tables: the study's word, and the variant that stands for it
ROWS = {
    "FP16": "torch-fp16",
    "INT8": "bnb-int8",
    "INT4": "bnb-nf4",
    "ONNX FP32": "onnx-fp32",
    "ONNX INT8": "onnx-int8",
    "ONNX KV Cache": "onnx-fp32-kv",
    "ONNX KV Cache INT8": "onnx-int8-kv",
}
MODELS = {"distilgpt2", "dialogpt-small", "tinyllama-1.1b", "llama-3.2-1b"}
# the study measured ONNX Runtime on the CPU; the rest is what explains its figures
BESIDE = {
    "torch-fp32",
    "bnb-int8-t0",
    "bnb-fp4",
    "onnx-int8-cpu",
    "onnx-fp16-kv",
    "onnx-int8w-kv",
    "onnx-int4-kv",
    "gguf-q4_k_m",  # what its INT4 row of Llama-3.2-1B was, in llama.cpp
}
GRAPHS = {"torch-fp16-graph", "bnb-nf4-graph", "bnb-int8-t0-graph", "int8-graph", "int4-graph"}


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("gpu") / "checkout"
    studies.checkout(folder)
    return studies.Study(folder)


def planned(unread, name) -> dict[str, set[str]]:
    """What a dry run of config/{name}.yaml, as it stands, would do."""
    (unread.folder / "config" / "tiny.yaml").write_text((unread.folder / "config" / f"{name}.yaml").read_text())
    return unread.planned()


def cells(plan, kind, rule) -> set[tuple[str, str]]:
    paths = [path.split("/") for path in plan[rule] if path.endswith(".json") and path.split("/")[2] == kind]
    return {(path[3], path[4].removesuffix(".json")) for path in paths}


def test_the_plan_of_the_study_has_every_row_of_its_tables(unread):
    plan = planned(unread, "t4")
    measured = cells(plan, "speed", "measure")
    assert measured == {(model, variant) for model in MODELS for variant in {*ROWS.values(), *BESIDE, *GRAPHS}}
    assert cells(plan, "quality", "evaluate") == measured
    assert {"preflight", "fetch_model", "fetch_corpus", "export", "fuse", "quantize", "summarize", "report"} <= set(
        plan
    )
    for word, variant in ROWS.items():
        assert VARIANTS[variant].label == word or (word, VARIANTS[variant].bits) == ("INT4", 4)


def test_the_plan_of_the_architectures_has_their_cells_and_scores_real_weights_alone(unread):
    plan = planned(unread, "architectures")
    config = yaml.safe_load((unread.folder / "config" / "architectures.yaml").read_text())
    assert set(config["models"]) > MODELS
    expected = {
        (name, variant)
        for name, model in config["models"].items()
        for variant in model.get("variants", config["variants"])
    }
    assert cells(plan, "speed", "measure") == expected
    real = {name for name, model in config["models"].items() if model["source"] != "random"}
    assert {model for model, _ in cells(plan, "quality", "evaluate")} == real
    assert cells(plan, "quality", "evaluate") | cells(plan, "quality", "unscored") == expected


@pytest.mark.skipif(not preflight.problems(preflight.look()), reason="a GPU that can be used is here")
def test_a_run_without_a_card_ends_in_one_line_before_any_download(unread):
    planned(unread, "t4")
    done = unread.snakemake(check=False)
    assert done.returncode
    lines = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1 and lines.pop().startswith("error: device: cuda, but "), done.stdout[-3000:]
    assert "Traceback" not in done.stdout and "rule fetch" not in done.stdout
    results = unread.folder / "results" / "t4"
    assert not (results / "models").exists() and not (results / "corpus").exists()


def test_vllms_cells_are_planned_and_installed_by_nobody(unread):
    config = yaml.safe_load((unread.folder / "config" / "gpu.yaml").read_text())
    for model in config["models"].values():
        model["variants"] = ["torch-fp16", "vllm-fp16", "vllm-fp8", "own-awq"]
    checkpoint = {"source": "local", "path": "awq"}
    config["define"] |= {"own-awq": {"engine": "vllm", "checkpoint": checkpoint}}
    (unread.folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(config))
    plan = unread.planned()
    assert {variant for _, variant in cells(plan, "speed", "measure")} == {
        "torch-fp16",
        "vllm-fp16",
        "vllm-fp8",
        "own-awq",
    }
    assert not any("venv" in path for paths in plan.values() for path in paths)
