"""Under load: the table of every cell at every load, and crossings of speedup curves against brute force."""

import math

import numpy as np
import pytest

from tests import synthetic, synthetic_cells
from workflow.tradeoff.summarize import crossings
from workflow.tradeoff.summarize.build import summarize
from workflow.tradeoff.summarize.cells import read
from workflow.tradeoff.summarize.crossings import Point

VARIANTS = ("torch-fp32", "bnb-int8", "onnx-fp32", "onnx-int8-kv", "onnx-int4-kv")


def tables(folder, **settings):
    study = synthetic.write(folder, variants=VARIANTS, **settings)
    return summarize(read(study.speed, study.quality, study.manifests))[0]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    faults = {("tiny-a", "onnx-int4-kv"): "out_of_memory_16"}
    faults |= {("tiny-b", "bnb-int8"): "other_machine", ("tiny-b", "onnx-int8-kv"): "disturbed"}
    faults |= {("tiny-b", "onnx-int4-kv"): "not_quantized"}
    return tables(tmp_path_factory.mktemp("study"), models=2, loads=synthetic.LOADS, faults=faults)


@pytest.fixture(scope="module")
def loads(found):
    return found["loads"].set_index(["model", "variant", "load"]).sort_index()


def test_one_load_is_the_summary_again(tmp_path):
    found = tables(tmp_path)
    summary, loads = found["summary"].set_index("variant"), found["loads"].set_index("variant")
    assert set(loads["load"]) == {"standard"} and found["crossings"].empty
    for name in ("speedup", "speedup_low", "ttft_ms", "itl_p99_ms", "memory_mb", "peak_mb", "mbu_pct", "replicates"):
        assert loads[name].tolist() == pytest.approx(summary[name].tolist(), nan_ok=True), name
    assert loads["tokens_per_s"].tolist() == pytest.approx(summary["decode_tokens_per_s"].tolist(), nan_ok=True)
    assert loads["roofline_label"].tolist() == summary["roofline_label"].tolist()


def test_further_loads_leave_the_other_tables_as_they_are(tmp_path):
    with_loads, without = tables(tmp_path / "a", loads=synthetic.LOADS), tables(tmp_path / "b")
    assert with_loads["summary"].equals(without["summary"]) and with_loads["latency"].equals(without["latency"])


def test_every_cell_has_a_row_at_every_load(found):
    assert len(found["loads"]) == 2 * len(VARIANTS) * 4
    assert found["loads"]["load"].unique().tolist() == ["standard", *(load[0] for load in synthetic.LOADS)]


def test_speed_is_of_all_sequences_and_of_one(loads):
    row = loads.loc[("tiny-a", "bnb-int8", "4x32+32")]
    assert row["tokens_per_s"] == pytest.approx(4 * row["tokens_per_s_each"])
    # the prompt of four sequences takes twelve steps' time beside the 31 steps
    assert row["throughput_tokens_per_s"] < row["tokens_per_s"]
    truth = 1 / (synthetic_cells.TRUTHS["bnb-int8"][0] * 4 ** synthetic_cells.BATCH_POWERS["bnb-int8"])
    assert row["speedup"] == pytest.approx(truth, rel=0.05)
    assert row["speedup_low"] < row["speedup"] < row["speedup_high"]


def test_memory_grows_with_the_keys_and_values(loads):
    for load, sequences, prompt, _ in synthetic.LOADS:
        row = loads.loc[("tiny-a", "bnb-int8", load)]
        assert row["cache_mb"] == pytest.approx(0.9 * sequences * prompt / 32)
        assert row["memory_mb"] == pytest.approx(row["weight_mb"] + row["cache_mb"])


def test_a_batch_turns_a_bandwidth_bound_step_compute_bound(loads):
    base = loads.loc[("tiny-a", "torch-fp32")]
    assert base.loc["standard", "roofline_label"] == "bandwidth-bound"
    assert base.loc["16x32+32", "roofline_label"] == "compute-bound"
    assert base.loc["16x32+32", "bytes_per_step"] - base.loc["standard", "bytes_per_step"] == 15 * 900_000


def test_what_fails_at_one_load_keeps_the_others(loads):
    rows = loads.loc[("tiny-a", "onnx-int4-kv")]
    assert rows.loc["16x32+32", "status"] == "out_of_memory"
    assert rows.loc["16x32+32", "reason"] == "planted out_of_memory" and np.isnan(rows.loc["16x32+32", "speedup"])
    assert (rows["status"].drop("16x32+32") == "ok").all() and rows["speedup"].notna().sum() == 3


def test_a_gate_refuses_every_load_and_another_environment_every_ratio(loads):
    refused = loads.loc[("tiny-b", "onnx-int4-kv")]
    assert set(refused["status"]) == {"not_quantized"} and refused["tokens_per_s"].isna().all()
    elsewhere = loads.loc[("tiny-b", "bnb-int8")]
    assert elsewhere["speedup"].isna().all() and (elsewhere["tokens_per_s"] > 0).all()


def test_a_disturbed_standard_load_leaves_the_others_their_figures(loads):
    rows = loads.loc[("tiny-b", "onnx-int8-kv")]
    assert rows.loc["standard", "status"] == "disturbed" and np.isnan(rows.loc["standard", "tokens_per_s"])
    assert rows.loc["4x32+32", "status"] == "ok" and rows.loc["4x32+32", "speedup"] > 1


def test_the_crossings_are_where_they_were_planted(found):
    table = found["crossings"]
    part = table[(table["model"] == "tiny-a") & (table["over"] == "sequences")].set_index(
        ["ahead_before", "ahead_after"]
    )
    row = part.loc[("onnx-int8-kv", "torch-fp32")]
    truth = (1 / synthetic_cells.TRUTHS["onnx-int8-kv"][0]) ** (1 / synthetic_cells.BATCH_POWERS["onnx-int8-kv"])
    assert row["crosses_at_low"] < truth < row["crosses_at_high"] and row["at"] == "32 prompt tokens, 32 new tokens"
    assert row["words"].startswith("onnx-int8-kv is ahead of torch-fp32 up to ") and "] sequences, and" in row["words"]
    assert ("onnx-int8-kv", "onnx-int4-kv") not in part.index  # behind from the first point on


def test_a_curve_without_a_crossing_says_so(found):
    table = found["crossings"]
    [row] = table[(table["model"] == "tiny-a") & (table["over"] == "prompt_tokens")].to_dict("records")
    assert row["words"] == "no two of the 5 variants with a curve change places"
    assert (row["from"], row["to"], row["at"]) == (32, 1024, "1 sequence, 32 new tokens")


def brute(x, d, h, steps=20001):
    """The place where the interpolated difference changes its sign, and the least and most place not told from none."""
    grid = np.linspace(0, 1, steps)
    places, values, halves = [], [], []
    for at in range(len(x) - 1):
        places.append((1 - grid) * math.log(x[at]) + grid * math.log(x[at + 1]))
        values.append((1 - grid) * d[at] + grid * d[at + 1])
        halves.append(np.hypot((1 - grid) * h[at], grid * h[at + 1]))
    places, values, halves = map(np.concatenate, (places, values, halves))
    change = np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) <= 0)[0]
    unsure = places[np.abs(values) <= halves]
    return np.exp([places[change], unsure.min(), unsure.max()])


@pytest.mark.parametrize("seed", range(20))
def test_a_crossing_and_its_interval_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.choice([1, 2, 4, 8, 16, 64], 4, replace=False)).astype(float)
    # sure at both ends, once each way; between them whatever comes, as long as it does not turn back
    d = np.sort(np.array([-0.6, *rng.uniform(-0.15, 0.15, 2), 0.5])) * rng.choice([-1, 1])
    ends = np.array([0.1, 0.2, 0.2, 0.1])
    one, other = rng.uniform(0.3, 0.9, 4) * ends, rng.uniform(0.1, 0.4, 4) * ends
    shift = rng.uniform(-1, 1, 4)
    curves = [
        [Point(*point) for point in zip(x, values, halves, strict=True)]
        for values, halves in ((d + shift, one), (shift, other))
    ]
    [(place, low, high, ahead)] = crossings.crossings(*curves)
    assert [place, low, high] == pytest.approx(brute(x, d, np.hypot(one, other)), rel=2e-3)
    assert ahead == (d[0] > 0)


def test_an_interval_holds_the_true_crossing_as_often_as_it_says():
    """Fieller's set, over two loads with normal errors: 95 in 100."""
    rng, held, taken = np.random.default_rng(0), 0, 0
    sigma, half, truth = 0.05, 1.959964 * 0.05, math.exp(math.log(16) * 0.4 / (0.4 + 0.6))
    for _ in range(3000):
        d = np.array([0.4, -0.6]) + rng.normal(0, sigma, 2)
        one = [Point(1.0, d[0], half), Point(16.0, d[1], half)]
        found = crossings.crossings(one, [Point(1.0, 0.0, 0.0), Point(16.0, 0.0, 0.0)])
        taken += len(found)
        held += sum(low <= truth <= high for _, low, high, _ in found)
    assert taken == 3000 and held / taken == pytest.approx(0.95, abs=0.01)


def test_without_certainty_on_both_sides_there_is_no_crossing():
    flat = [Point(1.0, 0.0, 0.0), Point(4.0, 0.0, 0.0), Point(16.0, 0.0, 0.0)]
    assert crossings.crossings([Point(1.0, 0.5, 0.1), Point(4.0, -0.2, 0.3), Point(16.0, -0.1, 0.2)], flat) == []
    assert crossings.crossings([Point(1.0, 0.5, 0.1)], flat) == []
    twice = crossings.crossings([Point(1.0, 0.5, 0.1), Point(4.0, -0.5, 0.1), Point(16.0, 0.5, 0.1)], flat)
    assert [first for *_, first in twice] == [True, False]
