"""The tables of a synthetic study: known truths come out, planted faults are gated, equal input gives equal files."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from tests import synthetic, synthetic_cells
from workflow.tradeoff.columns import COLUMNS
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.summarize import build as summarize
from workflow.tradeoff.summarize import tables
from workflow.tradeoff.summarize.__main__ import main as summarize_main
from workflow.tradeoff.summarize.cells import read


def run(folder, **options):
    study = synthetic.write(folder / "study", **options)
    summarize_main(study.flags(folder / "tables"))
    summary = pd.read_csv(folder / "tables" / "summary.csv").set_index(["model", "variant"])
    return summary, folder / "tables"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), models=2)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    faults = {
        ("tiny-a", "torch-bf16"): "noisy",
        ("tiny-a", "bnb-int8"): "not_quantized",
        ("tiny-a", "bnb-nf4"): "out_of_memory",
        ("tiny-a", "onnx-fp32"): "quality_error",
        ("tiny-a", "onnx-int8"): "fell_back",
        ("tiny-a", "onnx-fp32-kv"): "nan",
        ("tiny-a", "onnx-int8-kv"): "garbage",
        ("tiny-a", "onnx-int4-kv"): "other_machine",
    }
    return run(tmp_path_factory.mktemp("faulty"), faults=faults)


def test_every_table_is_written_with_its_note(whole):
    _, folder = whole
    notes = json.loads((folder / "notes.json").read_text())
    for name in summarize.TABLES:
        assert (folder / f"{name}.csv").is_file()
        assert notes[name]["title"] and notes[name]["note"]
    assert "32 prompt tokens, 32 new tokens" in notes["summary"]["note"]
    assert "5 fresh processes, 3 timed in each" in notes["benchmark"]["note"]
    assert "CC BY-SA 3.0" in notes["perplexity"]["note"]


def test_the_columns_are_those_that_are_explained(whole):
    summary, _ = whole
    assert list(summary.reset_index().columns.sort_values()) == sorted(COLUMNS)


@pytest.mark.parametrize("variant", ["onnx-int8-kv", "onnx-fp32-kv", "bnb-int8"])
def test_speedup_is_the_planted_one(whole, variant):
    summary, _ = whole
    for model in ("tiny-a", "tiny-b"):
        row = summary.loc[model, variant]
        truth = 1 / synthetic_cells.TRUTHS[variant][0]
        assert row["speedup"] == pytest.approx(truth, rel=0.03)
        assert row["speedup_low"] < truth * 1.01 and row["speedup_high"] > truth * 0.99
        assert row["speed_verdict"] == ("faster" if truth > 1 else "slower")


def test_ratios_are_against_the_models_own_baseline(whole):
    summary, _ = whole
    baseline = summary.xs("torch-fp32", level="variant")
    assert (baseline["speedup"] == 1).all() and (baseline["memory_reduction_pct"] == 0).all()
    assert (baseline["delta_nll"] == 0).all()
    assert summary.loc[("tiny-b", "torch-bf16"), "memory_reduction_pct"] == pytest.approx(40, abs=0.1)


def test_degradation_is_paired_and_its_verdict_follows_the_interval(whole):
    summary, _ = whole
    row = summary.loc["tiny-a", "bnb-nf4"]
    assert row["degradation_pct"] == pytest.approx(100 * math.expm1(row["delta_nll"]))
    assert row["degradation_low_pct"] < row["degradation_pct"] < row["degradation_high_pct"]
    assert row["quality_verdict"] == "worse"
    assert summary.loc[("tiny-a", "torch-bf16"), "quality_verdict"] == "no detectable change"


@pytest.mark.parametrize(
    ("variant", "status", "words"),
    [
        ("bnb-int8", "not_quantized", "10% of the linear weights"),
        ("bnb-nf4", "out_of_memory", "planted"),
        ("onnx-int8", "fell_back", "MatMulInteger"),
        ("onnx-fp32-kv", "diverged", "not numbers"),
        ("onnx-int8-kv", "diverged", "KL divergence"),
    ],
)
def test_a_gated_cell_keeps_its_row_and_claims_nothing(faulty, variant, status, words):
    summary, folder = faulty
    row = summary.loc["tiny-a", variant]
    assert row["status"] == status and words in row["reason"]
    for name in ("decode_tokens_per_s", "speedup", "speed_verdict", "study_tokens_per_s", "itl_p50_ms", "mbu_pct"):
        assert pd.isna(row[name])
    assert variant not in set(pd.read_csv(folder / "itl.csv")["variant"])
    assert variant not in set(pd.read_csv(folder / "growth.csv")["variant"])
    benchmark = pd.read_csv(folder / "benchmark.csv").set_index("variant").loc[variant]
    assert benchmark["status"] == status and pd.isna(benchmark["tokens_per_s"])


def test_no_ratio_across_environments_and_the_fields_are_named(faulty):
    row = faulty[0].loc["tiny-a", "onnx-int4-kv"]
    assert row["status"] == "ok" and not pd.isna(row["decode_tokens_per_s"])
    assert "machine.cpu: Other CPU | Test CPU @ 2.0 GHz" in row["reason"]
    assert pd.isna(row["speedup"]) and pd.isna(row["memory_reduction_pct"])


def test_a_failed_evaluation_leaves_the_speed(faulty):
    row = faulty[0].loc["tiny-a", "onnx-fp32"]
    assert row["status"] == "ok" and row["accuracy_status"] == "error" and not pd.isna(row["speedup"])
    assert pd.isna(row["perplexity"]) and "accuracy: planted" in row["reason"]


def test_noise_is_told(faulty):
    assert str(faulty[0].loc[("tiny-a", "torch-bf16"), "noisy"]).lower() == "true"


def test_random_weights_have_speed_and_no_accuracy(tmp_path):
    faults = {("tiny-a", variant): "random" for variant in synthetic.CPU_VARIANTS}
    summary, folder = run(tmp_path, faults=faults)
    assert set(summary["status"]) == {"ok"} and set(summary["accuracy_status"]) == {"not_applicable"}
    assert summary["speedup"].notna().all() and summary["perplexity"].isna().all()
    assert pd.read_csv(folder / "degradation.csv").empty
    assert "not_applicable" in set(pd.read_csv(folder / "accuracy_drop.csv")["status"])


def test_the_studys_own_tables(whole):
    summary, folder = whole
    onnx = pd.read_csv(folder / "onnx.csv").set_index(["model", "variant"])
    ratio = onnx.loc[("tiny-a", "onnx-int8-kv"), "over_onnx_fp32"]
    assert ratio == pytest.approx(2.4 / 0.35, rel=0.25)
    speeds = pd.read_csv(folder / "speed_by_precision.csv").set_index(["model", "engine"])
    shown = speeds.loc[("tiny-a", "ONNX Runtime, KV cache"), "INT8"]
    assert shown == pytest.approx(summary.loc[("tiny-a", "onnx-int8-kv"), "study_tokens_per_s"])
    assert speeds.loc[("tiny-a", "ONNX Runtime, KV cache"), "of"] == "onnx-int8-kv"
    matrix = pd.read_csv(folder / "efficiency_matrix.csv").set_index(["model", "variant"])
    assert matrix.loc[("tiny-a", "torch-fp32"), "overall_efficiency"] == "Baseline"
    assert matrix.loc[("tiny-a", "onnx-fp32"), "overall_efficiency"] == "Poor"
    perplexity = pd.read_csv(folder / "perplexity.csv")
    assert set(perplexity["convention"]) == {"study"} and perplexity["paper_loss"].notna().all()


@pytest.mark.parametrize(
    ("product", "word"),
    # the study's rows: bitsandbytes INT8, ONNX INT8, INT4, KV cache
    [(0.65 * 1.12, "Poor"), (1.69 * 2.0, "High"), (4.55 * 4.0, "Excellent"), (6.8, "Excellent"), (math.nan, None)],
)
def test_the_words_for_efficiency_are_the_studys(product, word):
    assert tables.overall(product) == word


def test_without_a_cache_the_latency_grows(whole):
    growth = pd.read_csv(whole[1] / "growth.csv").set_index(["source", "model", "variant"])
    for variant, more in (("onnx-fp32", 1.2), ("onnx-fp32-kv", 0.9)):
        times = growth.loc[("answers", "tiny-a", variant), "itl_ms"].to_numpy()
        assert (times[-5:].mean() / times[:5].mean() > 1.15) == (more > 1)
        steps = growth.loc[("proof", "tiny-a", variant), ["length_tokens", "itl_ms"]]
        assert steps.to_numpy().tolist() == [[8, 50], [64, 51]]


def test_resources_are_held_against_the_float_weights(tmp_path):
    study = synthetic.write(tmp_path / "study")
    path = tmp_path / "benchmarks" / "export" / "tiny-a_int8.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t1000.0\n")
    empty = tmp_path / "benchmarks" / "fetch" / "tiny-a.tsv"
    empty.parent.mkdir(parents=True)
    empty.write_text("s\th:m:s\tmax_rss\n0.1\t0:00:00\tNA\n")
    gone = tmp_path / "benchmarks" / "quantize" / "tiny-a.tsv"  # results brought from another machine may lack one
    flags = [*study.flags(tmp_path / "tables"), "--benchmarks", str(path), str(empty), str(gone)]
    summarize_main(flags)
    table = pd.read_csv(tmp_path / "tables" / "resources.csv").set_index("rule")
    assert table.loc["export", "peak_over_fp32_weights"] == pytest.approx(1048.576e6 / (4 * 1.3e8))
    assert pd.isna(table.loc["fetch", "peak_rss_mb"])


def test_equal_input_gives_equal_files(tmp_path):
    study = synthetic.write(tmp_path / "study", replicates=9)
    for name in ("one", "two"):
        summarize_main(study.flags(tmp_path / name))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_one_replicate_gives_figures(tmp_path):
    summary, _ = run(tmp_path, replicates=1)
    assert summary["decode_tokens_per_s"].notna().all() and summary["speedup"].notna().all()


def test_order_is_the_registrys_whatever_the_files_order(tmp_path):
    study = synthetic.write(tmp_path, models=2)
    cells = read(study.speed[::-1], study.quality, study.manifests)
    assert [cell.model for cell in cells[:9]] == ["tiny-b"] * 9
    assert [cell.variant for cell in cells[:9]] == list(synthetic.CPU_VARIANTS)


def test_bad_input_is_one_line(tmp_path):
    study = synthetic.write(tmp_path)
    with pytest.raises(UserError, match="twice"):
        read([study.speed[0], study.speed[0]], [], [])
    with pytest.raises(UserError, match="no cell"):
        read([], [], [])
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read([broken], [], [])
    broken.write_text('{"schema": 9}')
    with pytest.raises(UserError, match="schema 9"):
        read([broken], [], [])
    with pytest.raises(UserError, match="is of study 'synthetic'"):
        summarize_main(["--study", "other", "--speed", str(study.speed[0]), "--output", str(tmp_path / "tables")])
    with pytest.raises(UserError, match="word was not evaluated"):
        summarize_main([*study.flags(tmp_path / "tables"), "--convention", "word"])


def test_bytes_per_token_leave_out_a_table_that_lies_apart(tmp_path):
    study = synthetic.write(tmp_path, variants=("torch-fp32",))
    cell = read(study.speed, [], study.manifests)[0]
    from workflow.tradeoff.summarize.rows_speed import bytes_per_token

    whole = cell.speed["memory"]["weight_bytes"] + cell.speed["memory"]["cache_bytes"]
    assert bytes_per_token(cell) == whole
    cell.facts["embedding_parameters"] = int(cell.facts["parameters"] * 0.2)  # all that is not linear
    assert bytes_per_token(cell) == pytest.approx(whole - 0.2 * 1.3e8 * 4)
    cell.facts["embedding_parameters"] = int(cell.facts["parameters"] * 0.5)  # more than that: the head shares it
    assert bytes_per_token(cell) == whole
    cell.speed["proof"]["unread_bytes"] = 1000
    assert bytes_per_token(cell) == whole - 1000
    assert np.isfinite(whole)
