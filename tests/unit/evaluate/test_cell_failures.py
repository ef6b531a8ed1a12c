"""The stage that evaluates a cell, from flags to files: its failures and its refusals."""

import json
import math
import os
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.serving import counted_from, never_returns
from tests.unit.evaluate.stage import Fake
from workflow.tradeoff import engines, files
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate import cell as evaluate
from workflow.tradeoff.evaluate.__main__ import apart as evaluate_apart
from workflow.tradeoff.evaluate.__main__ import main as evaluate_main
from workflow.tradeoff.run import hang

FAULTS = {
    "diverged": "nan",
    "fell_back": CellFailure("fell_back", "ran on the CPU"),
    "out_of_memory": torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"),
}


@pytest.mark.parametrize("status", FAULTS)
def test_a_failure_is_data(stage, monkeypatch, status):
    stage.run("torch-fp32", names=["windows-64"])
    monkeypatch.setattr(engines, "load", lambda *_: Fake(FAULTS[status]))
    result = stage.run("torch-bf16", names=["windows-64"])
    assert result["status"] == status and result["reason"] and "\n" not in result["reason"]
    assert result["conventions"] == {} and result["divergence"] is None and stage.arrays("torch-bf16") == {}


def test_a_cell_of_another_kind_of_machine_is_not_scored(stage, monkeypatch):
    monkeypatch.setattr(stage, "main", evaluate_apart, raising=False)
    kind = json.dumps({"device": "cpu", "expect": {"cpu": "No such CPU"}})
    result = stage.run("torch-fp32", "--machine", "other", kind, names=["windows-64"])
    assert result["status"] == "mismatched" and "'No such CPU' is expected, and " in result["reason"]
    assert result["conventions"] == {} and stage.arrays("torch-fp32") == {}


@pytest.mark.parametrize("fault", ["nan", "all nan", "inf", "-inf"])
@pytest.mark.parametrize("variant", ["torch-fp32", "torch-bf16"])
def test_a_loss_that_is_no_number_is_diverged_without_a_figure(stage, monkeypatch, fault, variant):
    if variant != "torch-fp32":
        stage.run("torch-fp32", names=["windows-64", "study"])
    monkeypatch.setattr(engines, "load", lambda *_: Fake(fault))
    result = stage.run(variant, names=["windows-64", "study"])
    assert result["status"] == "diverged" and "NaN or infinite" in result["reason"]
    assert result["conventions"] == {} and result["divergence"] is None and result["generated"] == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_loading_without_memory_is_data(stage, monkeypatch, error):
    def load(*_):
        raise error

    monkeypatch.setattr(engines, "load", load)
    assert stage.run("torch-fp32")["status"] == "out_of_memory"
    # a failed baseline still leaves every file that the workflow expects, and its cells say why they stand alone
    assert stage.arrays("torch-fp32") == stage.arrays("torch-fp32", ".logprobs.npz") == {}
    monkeypatch.setattr(engines, "load", lambda *_: Fake())
    cell = stage.run("torch-bf16", names=["windows-64"])
    assert cell["status"] == "ok" and cell["divergence"] is None
    assert {entry["first_difference"] for entry in cell["generated"]} == {None}


def test_a_process_that_dies_is_data(stage, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(engines, "load", killed)
    monkeypatch.setattr(stage, "main", evaluate_apart)
    result = stage.run("torch-fp32")
    assert result["status"] == "out_of_memory" and "killed (signal 9)" in result["reason"]
    assert re.match(r"the weights alone need [\d,]+ bytes, [\d,]+ bytes were available \(", result["reason"])
    assert stage.arrays("torch-fp32") == stage.arrays("torch-fp32", ".logprobs.npz") == {}
    monkeypatch.setattr(engines, "load", lambda *_: os._exit(3))
    assert stage.run("torch-fp32")["status"] == "error"


def test_a_pass_that_never_ends_is_data(stage, monkeypatch, tmp_path):
    """Whatever was scored before it, there is no more than the status under the final names."""
    engine, begun = Fake(), tmp_path / "begun"
    monkeypatch.setattr(hang, "Wait", counted_from(begun))
    monkeypatch.setattr(engines, "load", lambda *_: engine)
    monkeypatch.setattr(stage, "main", evaluate_apart)
    monkeypatch.setattr(engine, "prefill", lambda ids: begun.touch() or never_returns())
    result = stage.run("torch-fp32", "--hung-after-s", "0.3", names=["windows-64"])
    assert result["status"] == "hung" and result["conventions"] == {}
    assert result["reason"].startswith("evaluate: generate text 1 of 10: no progress for 0.3 s, in greedy (evaluate/")
    assert str(stage.path("torch-fp32")) in result["reason"]
    folder = stage.path("torch-fp32").parent
    assert {path.name for path in folder.iterdir()} == {
        "torch-fp32.json", "torch-fp32.npz", "torch-fp32.logprobs.npz", "torch-fp32.plans.npz"
    }  # fmt: skip
    assert stage.arrays("torch-fp32") == stage.arrays("torch-fp32", ".logprobs.npz") == {}


@pytest.mark.parametrize("main", [evaluate_main, evaluate_apart])
def test_what_a_library_raises_is_this_cells_status(stage, monkeypatch, main):
    monkeypatch.setattr(stage, "main", main)
    monkeypatch.setattr(engines, "load", lambda *_: Fake(RuntimeError("shape mismatch\nadvice")))
    result = stage.run("torch-fp32")
    assert result["status"] == "error"
    assert re.fullmatch(r"RuntimeError: shape mismatch \(evaluate/stage.py, line \d+\)", result["reason"])
    assert stage.arrays("torch-fp32") == stage.arrays("torch-fp32", ".logprobs.npz") == {}


def test_an_artifact_that_could_not_be_made_gives_its_cell_the_reason(stage, tmp_path):
    files.write_failure(tmp_path / "int8-kv", CellFailure("unsupported", "export: no such layer"), {"step": "export"})
    result = stage.run("onnx-int8-kv", "--artifact", str(tmp_path / "int8-kv"), baseline="onnx-int8-kv")
    assert (result["status"], result["reason"]) == ("unsupported", "export: no such layer")


def test_weights_that_are_no_numbers_are_the_checkpoints_own_fault(stage, llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.down_proj.weight"][3, :2] = math.nan
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    files.write_manifest(folder, source={})
    result = stage.run("torch-fp32", "--artifact", str(folder), "--model-folder", str(folder))
    assert result["status"] == "diverged"
    assert "checkpoint itself holds NaN or infinity, in model.layers.1.mlp.down_proj.weight (2 of" in result["reason"]


def test_a_chat_template_that_raises_costs_the_text_alone(stage, llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('a system turn is needed') }}"
    tokenizer.save_pretrained(folder)
    files.write_manifest(folder, source={})
    places = ("--artifact", str(folder), "--model-folder", str(folder))
    result = stage.run("torch-fp32", *places, names=["windows-64"])
    assert result["status"] == "ok" and result["conventions"]["windows-64"]["perplexity"] > 1
    assert result["generated"] == [] and "a system turn is needed" in result["generated_reason"]
    # nor does asking for no text ask the template
    silent = stage.run("torch-fp32", *places, "--generate-tokens", "0", names=["windows-64"])
    assert silent["status"] == "ok" and silent["conventions"]["windows-64"]["perplexity"] > 1
    plain = stage.run("torch-fp32", *places, "--chat", "never", names=["windows-64"])
    assert len(plain["generated"]) == 10 and "generated_reason" not in plain


def test_a_tokenizer_with_more_tokens_than_the_model_is_this_cell_s_status(stage, llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "added")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"[{index}]" for index in range(80)] + ["bridge"])
    tokenizer.save_pretrained(folder)
    files.write_manifest(folder, source={})
    result = stage.run("torch-fp32", "--artifact", str(folder), "--model-folder", str(folder), names=["windows-64"])
    assert result["status"] == "error"
    assert re.match(
        r"the model's tokenizer gives the id \d+ on this text, and the model has 320 tokens", result["reason"]
    )


def test_random_weights_have_no_accuracy(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "is_random", lambda folder: True)
    result = stage.run("torch-fp32")
    assert result["status"] == "not_applicable" and stage.arrays("torch-fp32") == {}


def test_the_manifest_says_random(tmp_path):
    assert not evaluate.is_random(tmp_path)
    for value in (True, False):
        (tmp_path / "manifest.json").write_text(json.dumps({"random": value}))
        assert evaluate.is_random(tmp_path) is value


@pytest.mark.parametrize(("drift", "status"), [(1e-5, "ok"), (0.01, "diverged"), (0.1, "diverged")])
def test_float32_that_is_not_its_float32_baseline_within_rounding_has_no_figure(stage, monkeypatch, drift, status):
    """A wrong export that costs one percent looks like a quantization: in float32 there is none to explain it."""
    monkeypatch.setattr(engines, "load", lambda *_: Fake())
    stage.run("torch-fp32", names=["windows-64", "study"])
    monkeypatch.setattr(engines, "load", lambda *_: Fake(scale=1 + drift))
    result = stage.run("onnx-fp32-kv", names=["windows-64", "study"])
    assert result["status"] == status
    if status == "diverged":
        assert "where rounding explains 0.001" in result["reason"] and result["conventions"] == {}
    other = stage.run("torch-bf16", names=["windows-64", "study"])  # another dtype has an error of its own
    assert other["status"] == "ok" and other["conventions"]


def test_worse_than_guessing_is_diverged_and_keeps_its_numbers(stage, monkeypatch):
    stage.run("torch-fp32", names=["windows-64"])
    monkeypatch.setattr(engines, "load", lambda *_: Fake(scale=9.0))
    result = stage.run("torch-bf16", names=["windows-64"])
    assert result["status"] == "diverged" and "worse than guessing among 320 tokens" in result["reason"]
    assert result["conventions"]["windows-64"]["mean_nll"] > math.log(320) and result["divergence"]


@pytest.mark.parametrize(
    ("flags", "names", "message"),
    [
        ((), ["windows-5000"], "shorter than one window of 5000"),
        ((), ["windows-520"], "context of 512"),
        ((), ["sentences"], "unknown convention 'sentences'"),
        ((), ["study", "study"], "named twice"),
        (("--generate-tokens", "500"), ["study"], "evaluate.generate_tokens"),
    ],
)
def test_bad_input_is_one_line_before_the_model_is_loaded(stage, monkeypatch, flags, names, message):
    monkeypatch.setattr(engines, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=message):
        stage.run("torch-fp32", *flags, names=names)
    assert not stage.path("torch-fp32").exists()


def test_a_baseline_of_other_tokens_is_refused(stage):
    stage.run("torch-fp32", names=["windows-64"])
    with pytest.raises(UserError, match="are of windows-64, not of study"):
        stage.run("torch-bf16", names=["study"])
    with pytest.raises(UserError, match="scored other tokens"):
        stage.run("torch-bf16", "--max-tokens", "100", names=["windows-64"])
    (stage.root / "quality" / "torch-fp32.logprobs.npz").unlink()
    with pytest.raises(UserError, match=r"logprobs\.npz is missing"):
        stage.run("torch-bf16", names=["windows-64"])
