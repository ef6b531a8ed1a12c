"""Replication: measured cells against the study's statements, only where device, protocol and baseline allow it."""

import csv
from pathlib import Path

import pytest

from workflow.tradeoff.claims import claimfile, measured, replication

CONFIG = Path(__file__).resolve().parents[3] / "config"
DEFAULTS = {"study": "s", "status": "ok", "accuracy_status": "ok", "reason": "", "convention": "windows-512"}


@pytest.fixture(scope="module")
def study():
    data, found = claimfile.load(CONFIG / "claims.yaml")
    return data, found, claimfile.reference(CONFIG / "reference.yaml", found)


def cell(model, variant, baseline="torch-fp16", device="cuda", **values):
    row = {**DEFAULTS, "model": model, "variant": variant, "baseline": baseline, "device": device}
    for key, value in values.items():
        if isinstance(value, tuple):
            middle, low, high = value
            stem, suffix = (key[:-4], "_pct") if key.endswith("_pct") else (key, "")
            row |= {key: str(middle), f"{stem}_low{suffix}": str(low), f"{stem}_high{suffix}": str(high)}
        else:
            row[key] = str(value)
    return row


def judged(study, tmp_path, cells, environment=None, conventions=None):
    for name, table in (("summary", cells), ("conventions", conventions)):
        if table is not None:
            columns = list(dict.fromkeys(key for row in table for key in row))
            with open(tmp_path / f"{name}.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(table)
    read = measured.read(tmp_path / "summary.csv", study[2])
    return replication.judge(study[1], study[2], read, environment)


T4 = {"gpu": {"name": "Tesla T4"}, "machine": {"cpu": "any"}}
ON_T4 = [
    cell("distilgpt2", "torch-fp16", weight_mb=164, peak_mb=172, study_tokens_per_s=93.0, study_s_sd=0.002, speedup=1),
    cell("distilgpt2", "bnb-int8", weight_mb=121, peak_mb=140, study_tokens_per_s=31.0, study_s_sd=0.002,
         speedup=(0.33, 0.32, 0.34), degradation_pct=(1.0, 0.8, 1.2)),
]  # fmt: skip


def test_replication_on_the_studys_card(study, tmp_path):
    found = judged(study, tmp_path, ON_T4, T4)
    assert found["22.speed"].status == "reproduced"
    assert found["23.speed"].status == "not reproduced"
    assert found["122.int8"] == found["23.speed"]
    assert found["23.speedup"].status == "not reproduced"
    assert "0.32 to 0.34 here" in found["23.speedup"].arithmetic
    assert found["72.degradation"].status == "reproduced"
    assert found["122.slower"].status == "reproduced"
    assert found["22.memory"].status == "not reproduced"
    assert (found["19.speed"].status, found["19.speed"].arithmetic[:5]) == ("not comparable", "model")
    assert found["21.speedup"].status == "not comparable"
    assert found["94.range"].status == "not comparable"  # DialoGPT-small is part of it


def test_another_device_never_convicts_a_speed(study, tmp_path):
    found = judged(study, tmp_path, ON_T4, {"gpu": {"name": "NVIDIA H100 80GB HBM3"}})
    assert found["22.speed"].status == "not comparable"
    assert found["22.speed"].arithmetic.startswith("device")
    assert found["23.speedup"].status == "reproduced"  # slower there too: the direction holds
    faster = [ON_T4[0], {**ON_T4[1], "speedup": "1.5", "speedup_low": "1.4", "speedup_high": "1.6"}]
    found = judged(study, tmp_path, faster, {"gpu": {"name": "NVIDIA H100 80GB HBM3"}})
    assert found["23.speedup"].status == "not comparable"
    assert found["122.slower"].status == "not comparable"
    assert found["72.degradation"].status == "reproduced"  # accuracy does not depend on the card


def test_ratio_over_another_baseline_is_rebuilt(study, tmp_path):
    """Our baseline is torch-fp32, the study's ONNX rows divide by onnx-fp32: two of our speedups give the ratio."""
    cpu = {"baseline": "torch-fp32", "device": "cpu"}
    cells = [
        cell("distilgpt2", "onnx-fp32", **cpu, weight_mb=482, speedup=(0.5, 0.49, 0.51)),
        cell("distilgpt2", "onnx-int8", **cpu, weight_mb=240, speedup=(0.85, 0.84, 0.86)),
    ]
    found = judged(study, tmp_path, cells, {"machine": {}})
    assert found["30.speedup"].status == "reproduced"
    assert found["30.reduction"].status == "reproduced"
    assert found["23.speedup"].status == "not comparable"
    found = judged(study, tmp_path, cells[1:], {"machine": {}})
    assert found["30.speedup"].status == "not comparable"
    assert "baseline" in found["30.speedup"].arithmetic


def test_perplexity_needs_the_studys_convention(study, tmp_path):
    cells = [cell("distilbert/distilgpt2", "torch-fp16", perplexity=50)]
    found = judged(study, tmp_path, cells, T4)
    assert found["59.perplexity"].arithmetic.startswith("protocol")
    studied = [{"model": "distilbert/distilgpt2", "variant": "torch-fp16", "convention": "study",
                "perplexity": "85.1", "paper_perplexity": "82.4"}]  # fmt: skip
    found = judged(study, tmp_path, cells, {}, studied)
    assert found["59.perplexity"].status == "reproduced"
    assert found["59.loss"].status == "reproduced"
    assert found["106.perplexity"].status == "reproduced"


def test_a_failed_cell_says_why(study, tmp_path):
    found = judged(study, tmp_path, [{**ON_T4[1], "status": "not_quantized", "reason": "no layer was quantized"}], T4)
    assert "no layer was quantized" in found["23.speed"].arithmetic


def test_a_gguf_cell_is_held_against_the_row_that_llama_cpp_made(study, tmp_path):
    """The engine is ours; what the document's note clocked is still not known."""
    cells = [
        cell("Llama-3.2-1B", "torch-fp16", weight_mb=2472, peak_mb=2600, speedup=1),
        cell("Llama-3.2-1B", "gguf-q4_k_m", weight_mb=808, peak_mb=1100, speedup=(4.0, 3.9, 4.1)),
    ]
    found = judged(study, tmp_path, cells, T4)
    assert found["21.memory"].status == "not reproduced" and "0.55" in found["21.memory"].arithmetic
    assert "protocol: the study's figure is a one-line note on a Q4_K_M GGUF" in found["21.speed"].arithmetic
    assert "the study divides Llama-3.2-1B by TinyLlama-1.1B" in found["21.speedup"].arithmetic
    found = judged(study, tmp_path, cells, {"machine": {"cpu": "any"}})
    assert found["21.memory"].status == "not comparable" and "device: " in found["21.memory"].arithmetic
