"""Speed of a cell out of its raw turns: what counts, what was reached, and what a disturbed cell keeps."""

import math

import numpy as np
import pytest

from tests import synthetic
from workflow.tradeoff import precision, samples
from workflow.tradeoff.summarize import rows_speed
from workflow.tradeoff.summarize.build import summarize
from workflow.tradeoff.summarize.cells import read


def table(folder, **settings):
    study = synthetic.write(folder, variants=("torch-fp32", "torch-bf16", "bnb-nf4"), **settings)
    return summarize(read(study.speed, study.quality, study.manifests))[0]["summary"].set_index("variant")


def speed(change=lambda run, sample: None, variant="bnb-nf4", replicates=4):
    """A speed file whose samples went through ``change``."""
    rng = np.random.default_rng(0)
    found = synthetic.speed("tiny-a", variant, "torch-fp32", None, rng, replicates, ("standard", "study"))
    for run in found["protocols"]["standard"]["replicates"]:
        for sample in run["samples"]:
            change(run, sample)
    return found


def steady(run, sample):
    """Seconds a token: about 1 for the cell, 2 for the baseline."""
    sample["itl_s"] = [1 + 0.001 * run["replicate"] if run["role"] == "cell" else 2] * 4


def test_a_turn_that_was_disturbed_counts_nowhere():
    def spoil(run, sample):
        steady(run, sample)
        if run["replicate"] == 1 and run["role"] == "cell" and sample["turn"] == 0:
            sample |= {"disturbed": "others took 50% of a core's time", "itl_s": [9.0] * 4}

    line = rows_speed.speed_columns(speed(spoil))
    assert line["speedup"] == pytest.approx(2, rel=0.01) and line["turns"] == 11 and line["replicates"] == 4
    assert line["itl_p99_ms"] < 1100 and line["noisy"] == "false"


def test_what_was_reached_is_the_speedups_half_width():
    found = speed(steady)
    found["protocols"]["standard"]["replicates"][0]["samples"][0]["itl_s"] = [1.5] * 4
    line = rows_speed.speed_columns(found)
    every = samples.pairs(found["protocols"]["standard"]["replicates"], samples.decode_rate)
    half = precision.half_width(np.array([np.median(turns) for turns in every]), 4)
    assert line["half_width_pct"] == pytest.approx(100 * math.expm1(half))
    assert line["speedup_high"] / line["speedup"] - 1 == pytest.approx(math.expm1(half))
    found["protocols"]["standard"]["precision"] = 1e-6
    assert rows_speed.speed_columns(found)["noisy"] == "true"


def test_how_the_two_lived_is_in_the_row():
    found = speed(steady)
    assert rows_speed.speed_columns(found)["pairing"] == "live"
    alone = rows_speed.speed_columns(speed(steady, variant="torch-fp32"))
    assert alone["pairing"] == "alone" and alone["half_width_pct"] < 1 and alone["speedup"] == 1


def test_one_hiccup_is_no_drift():
    def loop(run, sample):
        sample["calibration_s"] = 0.01 * (9 if (run["replicate"], sample["turn"]) == (0, 0) else 1)

    assert rows_speed.speed_columns(speed(loop))["drift_pct"] == pytest.approx(0)

    def drifts(run, sample):
        sample["calibration_s"] = 0.01 * (1 + 0.1 * run["replicate"])

    assert rows_speed.speed_columns(speed(drifts))["drift_pct"] == pytest.approx(100 * 0.3 / 1.15)


def test_a_disturbed_cell_has_memory_and_accuracy_and_no_speed(tmp_path):
    rows = table(tmp_path, faults={("tiny-a", "bnb-nf4"): "disturbed"})
    row = rows.loc["bnb-nf4"]
    assert (row["status"], row["reason"]) == ("disturbed", "planted disturbed")
    assert np.isnan([row["speedup"], row["decode_tokens_per_s"], row["half_width_pct"], row["mbu_pct"]]).all()
    assert row["weight_mb"] > 0 and row["quantized_fraction"] == 1 and row["perplexity"] > 1
    assert rows.loc["torch-bf16", "status"] == "ok"


def test_the_baseline_beside_a_cell_is_in_its_row():
    found = speed(steady)
    for run in found["protocols"]["standard"]["replicates"]:
        for sample in run["samples"]:
            sample["ttft_s"] = 0.5 if run["role"] == "cell" else 3.0
    line = rows_speed.speed_columns(found)
    assert line["baseline_tokens_per_s"] == pytest.approx(0.5) and line["baseline_ttft_ms"] == pytest.approx(3000)
    assert line["decode_tokens_per_s"] / line["baseline_tokens_per_s"] == pytest.approx(line["speedup"], rel=0.01)
    assert "baseline_tokens_per_s" not in rows_speed.speed_columns(speed(steady, variant="torch-fp32"))


def test_a_call_that_went_astray_is_named_and_a_disturbed_one_does_not_count():
    found = speed()
    calls = [sample for run in found["protocols"]["study"]["replicates"] for sample in run["samples"]]
    for sample in calls:
        sample["total_s"] = 0.125
    assert rows_speed.astray(found) == ""
    calls[0]["total_s"] = 7.5
    own = len(rows_speed.replicates(found, "study", "cell")) * 3
    assert rows_speed.astray(found).startswith(
        f"by the paper's protocol one of {own} calls took 7.5 s, the median 0.125"
    )
    calls[0]["disturbed"] = "others took 50% of a core's time"
    assert rows_speed.astray(found) == "" and rows_speed.speed_columns(found)["study_s_mean"] == pytest.approx(0.125)
    for sample in calls:
        sample["disturbed"] = "others took 50% of a core's time"
    assert "others took the machine in each of its calls" in rows_speed.astray(found)
    assert "study_s_mean" not in rows_speed.speed_columns(found)


def test_energy_is_a_token_and_a_second_or_absent_with_the_reason():
    def read(run, sample):
        sample["energy"] = {"joules": 10.0, "seconds": 2.0, "source": "RAPL: package-0"}

    found = speed(read)
    found["proof"] = {"idle_energy": {"joules": 3.0, "seconds": 1.0, "source": "RAPL: package-0"}}
    line = rows_speed.speed_columns(found)
    tokens = 1 + len(found["protocols"]["standard"]["replicates"][0]["samples"][0]["itl_s"])
    assert line["joules_per_token"] == pytest.approx(10 / tokens)
    assert (line["watts"], line["idle_watts"], line["energy_source"]) == (5, 3, "RAPL: package-0")
    batch = rows_speed.energy_columns(rows_speed.replicates(found, "standard", "cell"), None, sequences=4)
    assert batch["joules_per_token"] == pytest.approx(line["joules_per_token"] / 4) and batch["watts"] == 5
    line = rows_speed.speed_columns(speed(lambda run, sample: sample.update(energy={"reason": "nothing measures it"})))
    assert line["energy_source"] == "nothing measures it" and "joules_per_token" not in line


def test_the_bandwidth_beside_a_cell_is_in_its_row_and_makes_its_utilization(tmp_path):
    row = table(tmp_path).loc["torch-bf16"]
    assert row["bandwidth_gb_per_s"] == 14
    moved = row["bytes_per_token"] * row["decode_tokens_per_s"] / 1e9
    assert row["mbu_pct"] == pytest.approx(100 * moved / row["bandwidth_gb_per_s"])
