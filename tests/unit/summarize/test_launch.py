"""Eager against graph: the planted ratios and shares come out, the words follow them, and a CPU run has none."""

import math

import pandas as pd
import pytest

from tests import synthetic
from workflow.tradeoff import stats
from workflow.tradeoff.report import launch_words
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.summarize import launch
from workflow.tradeoff.summarize.__main__ import main as summarize_main

GPU = {"device": "cuda", "gpu": {"name": "Test GPU", "memory_gb": 80.0}, "digest": "f" * 64}


def table(folder, **options):
    options = {"models": 2, "variants": synthetic.GPU_VARIANTS, "environment": GPU, **options}
    study = synthetic.write(folder / "study", **options)
    summarize_main(study.flags(folder / "tables"))
    return pd.read_csv(folder / "tables" / "launch.csv")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return table(tmp_path_factory.mktemp("gpu"), faults={("tiny-b", "bnb-nf4-graph"): "out_of_memory"})


def test_every_pair_has_its_row(found):
    assert list(found.columns) == list(launch.COLUMNS)
    assert list(found["variant"]) == ["torch-fp16", "bnb-int8-t0", "bnb-nf4"] * 2
    assert launch.PAIRS["bnb-int8-t0"] == "bnb-int8-t0-graph" and "bnb-int8" not in launch.PAIRS


@pytest.mark.parametrize(
    ("variant", "name", "truth"),
    [
        ("torch-fp16", "graph_over_eager", 10), ("bnb-int8-t0", "graph_over_eager", 5 / 0.16),
        ("bnb-int8-t0", "eager_over_torch-fp16", 0.2), ("bnb-int8-t0", "graph_over_torch-fp16", 1 / 0.16),
    ],
)  # fmt: skip
def test_ratios_are_the_planted_ones(found, variant, name, truth):
    row = found.set_index(["model", "variant"]).loc["tiny-a", variant]
    assert row[name] == pytest.approx(truth, rel=0.05)
    assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_profile_is_per_token_in_microseconds(found):
    row = found.set_index(["model", "variant"]).loc["tiny-a", "bnb-int8-t0"]
    step = 1e6 * synthetic.MODELS["tiny-a"] * 4 / 240e9
    assert row["eager_busy_us_per_token"] == pytest.approx(0.16 * step)
    assert row["eager_waiting_us_per_token"] == pytest.approx((5 - 0.16) * step)
    assert row["eager_launches_per_token"] == 1400 and row["graph_launches_per_token"] == 1


def test_a_failed_form_keeps_its_row_and_has_no_figure(found):
    row = found.set_index(["model", "variant"]).loc["tiny-b", "bnb-nf4"]
    assert row["status"] == "bnb-nf4-graph: out_of_memory" and "planted" in row["reason"]
    assert pd.isna(row["graph_over_eager"]) and pd.isna(row["graph_kernels_per_token"])
    assert not pd.isna(row["eager_tokens_per_s"])


def test_the_paragraph_names_launch_overhead_and_its_cells(found):
    words = launch_words.paragraphs(found)
    assert [text.split("**")[1] for text in words] == ["tiny-a.", "tiny-b."]
    assert "tiny-a/bnb-int8-t0, eager, is slower than torch-fp16 (0.201×" in words[0]
    assert "1,400 kernels instead of 420" in words[0] and "mostly launch overhead" in words[0]
    assert "tiny-a/bnb-nf4, eager, is faster than torch-fp16" in words[0] and "tiny-b/bnb-nf4" not in words[1]
    assert "nan" not in "".join(words)


def test_kernels_that_work_long_are_not_called_launch_overhead(found):
    heavy = found.copy()
    own = heavy["variant"] == "bnb-int8-t0"
    busy, waiting = "eager_busy_us_per_token", "eager_waiting_us_per_token"
    heavy.loc[own, [busy, waiting]] = heavy.loc[own, [waiting, busy]].to_numpy()
    assert "mostly the work of its kernels" in launch_words.paragraphs(heavy)[0]


def test_without_profile_or_reference_the_speeds_stand(found):
    bare = found[found["variant"] != "torch-fp16"].copy()
    bare[[name for name in bare.columns if name.endswith("per_token")]] = math.nan
    text = launch_words.paragraphs(bare)[0]
    assert "slower than torch-fp16" in text and "kernels" not in text and "nan" not in text
    bare[[name for name in bare.columns if "over_torch" in name]] = math.nan
    assert "no ratio to torch-fp16" in launch_words.paragraphs(bare)[0]


def test_another_baseline_is_no_obstacle(tmp_path):
    variants = ("bnb-nf4", "torch-fp16", "torch-fp16-graph", "bnb-nf4-graph")
    found = table(tmp_path, models=1, variants=variants).set_index("variant")
    for variant, name, truth in (("bnb-nf4", "eager_over", 1.0), ("bnb-nf4", "graph_over", 1 / 0.12)):
        row = found.loc[variant]
        assert row[f"{name}_torch-fp16"] == pytest.approx(truth, rel=0.05)
        assert row[f"{name}_torch-fp16_low"] < row[f"{name}_torch-fp16"] < row[f"{name}_torch-fp16_high"]
    assert found.loc["torch-fp16", "graph_over_eager"] == pytest.approx(10, rel=0.05)


def test_no_graph_variant_no_row(tmp_path):
    found = table(tmp_path, variants=synthetic.CPU_VARIANTS, environment=None)
    assert found.empty and launch_words.paragraphs(found) == []


def test_independent_intervals_combine_on_the_log_scale():
    above = Interval(4.0, 2.0, 8.0, 5, "m")
    below = Interval(1.0, 1.0, 1.0, 3, "m")
    ratio = stats.independent_ratio(above, below)
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == (4.0, 2.0, 8.0, 3)
    both = stats.independent_ratio(above, Interval(2.0, 1.0, 4.0, 5, "m"))
    assert both.low == pytest.approx(2 * 2 ** -math.sqrt(2)) and both.high == pytest.approx(2 * 2 ** math.sqrt(2))
    nothing = stats.independent_ratio(above, Interval(2.0, math.nan, math.nan, 1, "m"))
    assert nothing.value == 2.0 and math.isnan(nothing.low)


def test_coverage_of_the_independent_ratio():
    import numpy as np

    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        one, two = (stats.median_interval(np.exp(rng.normal(mean, 0.1, 5)).tolist()) for mean in (1.0, 0.0))
        ratio = stats.independent_ratio(one, two)
        hits += ratio.low <= math.e <= ratio.high
    assert hits >= 0.93 * 300
