"""The stage that evaluates a cell, from flags to files: its figures, its failures, its refusals."""

import json
import math
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.scored import NAMES, ROWS, Slow, make_plan
from workflow.tradeoff import engines, files, loaded
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate import cell as evaluate
from workflow.tradeoff.evaluate.__main__ import apart as evaluate_apart
from workflow.tradeoff.evaluate.__main__ import main as evaluate_main


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")
    files.write_manifest(folder, source={})
    return folder


class Stage:
    """Runs the stage on a corpus file, for any variant, with an engine of the test's choice."""

    main = staticmethod(evaluate_main)

    def __init__(self, folder, root):
        self.folder, self.root = folder, root
        self.corpus = root / "corpus.json"
        self.write_corpus(ROWS)

    def write_corpus(self, rows):
        content = {"name": "c", "license": "l", "source": "s", "sha256": "0" * 64, "rows": rows, "documents": [0]}
        self.corpus.write_text(json.dumps(content | {"digest": loaded.corpus_digest(content)}))

    def path(self, variant):
        return self.root / "quality" / f"{variant}.json"

    def run(self, variant, *more, names=NAMES, baseline="torch-fp32"):
        base = "" if variant == baseline else str(self.path(baseline))
        folder, corpus, output = str(self.folder), str(self.corpus), str(self.path(variant))
        flags = ["--study", "s", "--model", "m", "--variant", variant, "--baseline", baseline, "--artifact", folder]
        flags += ["--model-folder", folder, "--corpus", corpus, "--baseline-quality", base, "--conventions", *names]
        flags += ["--max-tokens", "200", "--batch-tokens", "256", "--divergence-tokens", "90", "--generate-tokens", "6"]
        flags += ["--bos", "auto", "--device", "cpu", "--threads", "1", "--output", output, *more]
        self.main(flags)
        return json.loads(self.path(variant).read_text())

    def arrays(self, variant, suffix=".npz"):
        with np.load(self.root / "quality" / f"{variant}{suffix}") as stored:
            return dict(stored)


@pytest.fixture
def stage(llama, tmp_path):
    return Stage(llama, tmp_path)


def test_a_baseline_and_a_cell(stage, llama):
    base = stage.run("torch-fp32")
    assert base["status"] == "ok" and base["divergence"] is None and list(base["conventions"]) == NAMES
    cell = stage.run("torch-bf16")
    assert cell["status"] == "ok" and cell["environment"]["digest"]
    arrays, other = stage.arrays("torch-fp32"), stage.arrays("torch-bf16")
    for name, entry in base["conventions"].items():
        nll = arrays[f"{name}/nll"].astype(np.float64)
        assert entry["tokens"] == len(nll) and entry["bos"] == "never"
        assert entry["perplexity"] == pytest.approx(math.exp(nll.mean()))
        np.testing.assert_array_equal(arrays[f"{name}/token"], other[f"{name}/token"])
        np.testing.assert_array_equal(arrays[f"{name}/block"], other[f"{name}/block"])
    word = base["conventions"]["word-64"]
    assert word["word_perplexity"] == pytest.approx(
        math.exp(arrays["word-64/nll"].sum(dtype=np.float64) / word["words"])
    )
    # divergence against float64 distributions of both models, token by token
    measured = cell["divergence"]["windows-64"]
    assert measured["tokens"] == 90 == len(other["windows-64/kl"])
    slow, plan = Slow(llama), make_plan(llama, "windows-64", "never", 200)
    window = plan.windows[0].tokens.tolist()
    network = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        logits = network(torch.tensor([window[:-1]])).logits[0].double()
    for at in (1, 30, 62):
        p, q = slow.logp(window[:at]), torch.log_softmax(logits[at - 1], dim=-1).numpy()
        kl = (np.exp(p) * (p - q)).sum()
        assert other["windows-64/kl"][at - 1] == pytest.approx(kl, rel=0.1, abs=3e-6)
    assert 0 < measured["compaction_error_bound"] < 1e-4 and measured["same_top"] > 0.8
    assert stage.arrays("torch-fp32", ".logprobs.npz")["codes"].shape == (90, tiny.VOCAB)
    assert not (stage.root / "quality" / "torch-bf16.logprobs.npz").exists()


def test_the_study_s_weights(stage):
    entry = stage.run("torch-fp32", names=["study"])["conventions"]["study"]
    arrays = stage.arrays("torch-fp32")
    means, sizes = [], []
    for block in np.unique(arrays["study/block"]):
        row = arrays["study/nll"][arrays["study/block"] == block].astype(np.float64)
        means.append(row.mean())
        sizes.append(len(row) + 1)
    assert entry["paper_loss"] == pytest.approx(np.average(means, weights=sizes))
    assert entry["mean_nll"] == pytest.approx(np.average(means, weights=np.array(sizes) - 1))
    assert entry["row_tokens"] == sum(sizes)
    assert entry["paper_perplexity"] == pytest.approx(math.exp(entry["paper_loss"]))


def test_generated_text_is_the_library_s(stage, llama):
    result = stage.run("torch-fp32", names=["study"])
    assert len(result["generated"]) == 10
    network, tokenizer = AutoModelForCausalLM.from_pretrained(llama).eval(), AutoTokenizer.from_pretrained(llama)
    first = result["generated"][0]
    ids = tokenizer(first["prompt"], return_tensors="pt").input_ids
    output = network.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :].tolist()
    assert first["token_ids"] == output and first["first_difference"] is None
    assert first["text"] == tokenizer.decode(output, skip_special_tokens=True)


class Fake:
    """An engine of random but fixed logits, with a fault on demand."""

    context, device = 512, torch.device("cpu")

    def __init__(self, fault=None, scale=1.0):
        self.fault, self.scale = fault, scale

    def score(self, ids, first=0):
        if isinstance(self.fault, BaseException):
            raise self.fault
        values = torch.randn(*ids.shape, tiny.VOCAB, generator=torch.Generator().manual_seed(0)) * self.scale
        if self.fault == "nan":
            values[0, -1, 3] = math.nan
        if self.fault in ("all nan", "inf", "-inf"):
            values[:] = float(self.fault.removeprefix("all "))
        return values[:, first:]

    def prefill(self, ids):
        self.step = 0
        return torch.tensor([[65]])

    def decode(self, token):
        self.step += 1
        return torch.tensor([[256 if self.step == 2 else 66]])

    def synchronize(self):
        pass


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


@pytest.mark.parametrize("main", [evaluate_main, evaluate_apart])
def test_what_a_library_raises_is_this_cells_status(stage, monkeypatch, main):
    monkeypatch.setattr(stage, "main", main)
    monkeypatch.setattr(engines, "load", lambda *_: Fake(RuntimeError("shape mismatch\nadvice")))
    result = stage.run("torch-fp32")
    assert result["status"] == "error"
    assert re.fullmatch(r"RuntimeError: shape mismatch \(evaluate/test_cell.py, line \d+\)", result["reason"])
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
    plain = stage.run("torch-fp32", *places, "--chat", "never", names=["windows-64"])
    assert len(plain["generated"]) == 10 and "generated_reason" not in plain


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


def test_text_stops_at_the_end_of_text_and_differs_where_it_differs(stage, monkeypatch):
    stage.run("torch-fp32", names=["windows-64"])
    base = json.loads(stage.path("torch-fp32").read_text())
    base["generated"][0]["token_ids"] = [65, 66, 256]
    base["generated"][1]["token_ids"] = [65, 67]
    base["generated"][2]["token_ids"] = [65, 66]
    stage.path("torch-fp32").write_text(json.dumps(base))
    monkeypatch.setattr(engines, "load", lambda *_: Fake())
    generated = stage.run("torch-bf16", names=["windows-64"])["generated"]
    assert [entry["first_difference"] for entry in generated[:3]] == [None, 1, 2]
    assert generated[0]["token_ids"] == [65, 66, 256] and generated[0]["text"] == "AB"


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
