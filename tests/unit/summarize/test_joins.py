"""Plants in a finished study: a row whose speed, quality and baseline are not of the same bytes has no figure."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import synthetic, synthetic_cells
from workflow.tradeoff.columns import COLUMNS
from workflow.tradeoff.summarize.__main__ import main as summarize_main

VARIANTS = ("torch-fp32", "onnx-fp32", "onnx-fp32-kv", "onnx-int8-kv")
OTHER = "f" * 64
# what a row may still say of a cell without figures
TOLD = {
    "study", "model", "variant", "baseline", "status", "accuracy_status", "reason", "device", "threads", "parameters",
    "size_class", "artifact", "deployable", "environment",
}  # fmt: skip


def edit(study: synthetic.Study, kind: str, variant: str, change) -> None:
    path = study.folder / kind / "tiny-a" / f"{variant}.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def summary(study: synthetic.Study, folder: Path) -> pd.DataFrame:
    summarize_main(study.flags(folder / "tables"))
    return pd.read_csv(folder / "tables" / "summary.csv", dtype={"artifact": str}).set_index("variant")


def digest(role, value=OTHER):
    return lambda data: data["digests"].update({role: value})


def artifact_digest(variant: str) -> str:
    return synthetic_cells.digests("tiny-a", variant, VARIANTS[0])["artifact"]


def float_file(data):
    """What a float32 file in an INT8 cell's place measures like."""
    data["digests"]["artifact"] = artifact_digest("onnx-fp32-kv")
    data["proof"] = synthetic_cells.proof("tiny-a", "onnx-int8-kv", "not_quantized")


def without_past(data):
    """What a file without past key values measures like in a cached cell's place."""
    data["digests"]["artifact"] = artifact_digest("onnx-fp32")
    data["proof"] |= {"cache": False}


PLANTS = {  # what was put where: the file that says so, and the role and both digests that the reason must name
    "a float32 file in onnx-int8-kv's place": ("speed", "onnx-int8-kv", float_file, "artifact"),
    "a file without past key values in onnx-fp32-kv's place": ("speed", "onnx-fp32-kv", without_past, "artifact"),
    "another model's weights": ("speed", "onnx-fp32", digest("model"), "model"),
    "a tokenizer swapped before the evaluation": ("quality", "onnx-fp32", digest("model"), "model"),
    "a baseline of another run, in the speed": ("speed", "onnx-fp32", digest("baseline"), "baseline"),
    "a baseline of another run, in the quality": ("quality", "onnx-fp32", digest("baseline"), "baseline"),
    "the baseline's scores of another run": ("quality", "onnx-fp32", digest("baseline_scores"), "scores"),
    "an evaluation of another corpus": ("quality", "onnx-fp32", digest("corpus"), "corpus"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_is_refused_by_both_digests_and_gives_no_figure(tmp_path, plant):
    kind, variant, change, role = PLANTS[plant]
    study = synthetic.write(tmp_path, variants=VARIANTS)
    clean = json.loads((tmp_path / kind / "tiny-a" / f"{variant}.json").read_text())["digests"]
    edit(study, kind, variant, change)
    planted = json.loads((tmp_path / kind / "tiny-a" / f"{variant}.json").read_text())["digests"]
    row = summary(study, tmp_path).loc[variant]
    assert row["status"] == row["accuracy_status"] == "mismatched"
    changed = next(name for name in clean if clean[name] != planted[name])
    assert role in row["reason"] and clean[changed][:12] in row["reason"] and planted[changed][:12] in row["reason"]
    assert set(row.dropna().index) <= TOLD
    for name in ("conventions", "divergence", "generated", "proof", "itl", "growth", "perplexity"):
        assert variant not in set(pd.read_csv(tmp_path / "tables" / f"{name}.csv")["variant"]), name


def test_the_cells_beside_a_plant_keep_their_figures(tmp_path):
    study = synthetic.write(tmp_path, variants=VARIANTS)
    edit(study, "speed", "onnx-int8-kv", float_file)
    found = summary(study, tmp_path).drop(index="onnx-int8-kv")
    assert set(found["status"]) == {"ok"}
    assert found[["speedup", "perplexity", "delta_nll", "memory_reduction_pct"]].notna().all(axis=None)


def test_a_model_that_the_study_no_longer_has_is_refused_in_every_cell(tmp_path):
    study = synthetic.write(tmp_path, variants=VARIANTS)
    manifest = json.loads(study.manifests[0].read_text())
    study.manifests[0].write_text(json.dumps(manifest | {"digest": OTHER}))
    found = summary(study, tmp_path)
    assert set(found["status"]) == {"mismatched"} and found["reason"].str.contains(OTHER[:12]).all()


def test_scores_that_are_not_those_that_the_quality_names_are_refused(tmp_path):
    study = synthetic.write(tmp_path, variants=VARIANTS)
    path = tmp_path / "quality" / "tiny-a" / "onnx-fp32.npz"
    with np.load(path) as stored:
        arrays = {name: array * 2 for name, array in stored.items()}
    np.savez(path, **arrays)
    row = summary(study, tmp_path).loc["onnx-fp32"]
    assert row["status"] == "mismatched" and "scores: the quality names" in row["reason"]


def test_the_baselines_scores_of_another_run_cost_the_others_their_row(tmp_path):
    study = synthetic.write(tmp_path, variants=VARIANTS)
    edit(study, "quality", "torch-fp32", digest("scores"))
    found = summary(study, tmp_path)
    assert set(found["status"]) == {"mismatched"}


@pytest.mark.parametrize("role", ["artifact", "model", "baseline"])
def test_a_speed_without_a_digest_is_no_figure(tmp_path, role):
    study = synthetic.write(tmp_path, variants=VARIANTS)
    edit(study, "speed", "onnx-fp32", lambda data: data["digests"].pop(role))
    row = summary(study, tmp_path).loc["onnx-fp32"]
    assert row["status"] == "mismatched" and f"does not say of which {role}" in row["reason"]


def test_a_cell_that_failed_before_it_had_digests_keeps_its_own_status(tmp_path):
    study = synthetic.write(tmp_path, variants=VARIANTS, faults={("tiny-a", "onnx-fp32"): "out_of_memory"})
    edit(study, "speed", "onnx-fp32", lambda data: data.pop("digests"))
    edit(study, "quality", "onnx-int8-kv", lambda data: data.update(status="error", conventions={}, reason="planted"))
    edit(study, "quality", "onnx-int8-kv", digest("artifact"))
    found = summary(study, tmp_path)
    assert found.loc["onnx-fp32", "status"] == "out_of_memory"
    failed = found.loc["onnx-int8-kv"]
    assert (failed["status"], failed["accuracy_status"]) == ("mismatched", "error") and "planted" in failed["reason"]


def test_the_summary_names_the_artifact_of_each_cell(tmp_path):
    found = summary(synthetic.write(tmp_path, variants=VARIANTS), tmp_path)
    assert "artifact" in COLUMNS
    for variant in VARIANTS:
        assert found.loc[variant, "artifact"] == artifact_digest(variant)[:12]


def test_a_cached_variant_without_a_cache_is_not_cached_and_claims_no_speed(tmp_path):
    """The plant of a file without past key values, when speed and quality were both taken of it."""
    study = synthetic.write(tmp_path, variants=VARIANTS)
    edit(study, "speed", "onnx-fp32-kv", lambda data: data["proof"].update(cache=False))
    row = summary(study, tmp_path).loc["onnx-fp32-kv"]
    assert row["status"] == "not_cached" and "no past key values" in row["reason"]
    assert pd.isna(row["decode_tokens_per_s"]) and not pd.isna(row["perplexity"])
