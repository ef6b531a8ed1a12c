"""The stage that evaluates a cell, from flags to files: its figures."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.scored import NAMES, Slow, make_plan
from tests.unit.evaluate.stage import Fake
from workflow.tradeoff import engines


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
