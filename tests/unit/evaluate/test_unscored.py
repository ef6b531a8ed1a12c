"""Cells of a model with random weights: their speed is kept, their accuracy says why there is none."""

import json

from workflow.tradeoff.evaluate import unscored
from workflow.tradeoff.summarize import build as summarize
from workflow.tradeoff.summarize import cells


def test_every_output_says_not_applicable(tmp_path):
    corpus = tmp_path / "corpus.json"
    corpus.write_text(json.dumps({"name": "bridge", "sha256": "0" * 64, "license": "none", "rows": []}))
    variants = ("torch-fp32", "onnx-int8")
    outputs = [tmp_path / "quality" / "random" / f"{variant}.json" for variant in variants]
    flags = ["--study", "s", "--baselines", "torch-fp32", "torch-fp32", "--corpus", str(corpus)]
    unscored.main([*flags, "--device", "cpu", "--threads", "1", "--outputs", *map(str, outputs)])
    found = cells.read([], outputs, [])
    assert [cell.variant for cell in found] == list(variants)
    assert all(cell.quality["status"] == "not_applicable" and cell.nll("windows-64") is None for cell in found)
    summary = summarize.summarize(found)[0]["summary"]
    assert set(summary["accuracy_status"]) == {"not_applicable"}
    assert summary["perplexity"].isna().all() and summary["reason"].str.contains("random").all()
