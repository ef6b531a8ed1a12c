"""Decisions over several kinds of machine: each answer names its machine, and what is asked across them."""

import json
import math

import pandas as pd
import pytest

from tests import synthetic
from workflow.tradeoff.decide import costs as prices
from workflow.tradeoff.decide import hardware
from workflow.tradeoff.decide.__main__ import main as decide
from workflow.tradeoff.decide.asked import parse
from workflow.tradeoff.summarize.__main__ import main as summarize

VARIANTS = ("torch-fp32", "bnb-int8", "onnx-fp32-kv", "onnx-int8-kv")
KINDS = {**synthetic.KINDS, "t4": {"device": "cuda", "threads": 1, "price_per_hour": 2.0, "scored_by": "t4"}}
CARD = {"device": "cuda", "gpu": {"name": "Tesla T4", "memory_gb": 16.0, "capability": "7.5"}, "digest": "c" * 64}
GPU = ("torch-fp16", "bnb-int8")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two machines of the CPU with a batch of four; what of a card is asked is in test_a_card… below."""
    folder = tmp_path_factory.mktemp("machines")
    study = synthetic.write_machines(folder, models=2, variants=VARIANTS, loads=synthetic.LOADS[:1])
    summarize([*study.flags(folder / "tables"), "--machines", json.dumps(synthetic.KINDS)])
    decide(["--tables", str(folder / "tables"), "--output", str(folder / "tables")])
    return folder / "tables"


@pytest.fixture(scope="module")
def decision(tables):
    return json.loads((tables / "decision.json").read_text())


def test_scenarios_front_and_advice_name_the_machine(tables):
    for name in ("pareto", "scenarios", "selection_matrix", "quality_aware", "cost_benefit", "use_cases"):
        table = pd.read_csv(tables / f"{name}.csv")
        assert table.columns[0] == "machine" and set(table["machine"]) == set(synthetic.KINDS), name


def test_the_answer_gives_each_scenario_on_each_machine_and_the_cost(decision):
    everyday = decision["answer"][0]
    assert everyday.startswith("For everyday use (") and "on cpu-amx: tiny-a/onnx-fp32-kv (" in everyday
    assert "on arm: tiny-a/onnx-fp32-kv (" in everyday
    cost = next(line for line in decision["answer"] if line.startswith("A million tokens cost"))
    assert "on arm as onnx-int8-kv (4x32+32, perplexity +" in cost
    text = " ".join(decision["answer"])
    assert "2 kinds of machine, cpu-amx (Test CPU @ 2.0 GHz, 1 thread); arm (Small CPU, 1 thread): 16 cells" in text


def test_the_tree_asks_for_the_hardware_by_kind_and_leaves_the_rest_open(decision):
    text = "\n".join(decision["tree"])
    assert "Hardware type?" in text and "cpu-amx: " in text and "arm: " in text
    assert "any other: not measured" in text and "[arm: tiny-a/" in text


def test_a_million_tokens_cost_the_hour_over_the_throughput(tables):
    costs, loads = pd.read_csv(tables / "costs.csv"), pd.read_csv(tables / "loads.csv")
    keys = ["machine", "model", "variant", "load"]
    both = costs.merge(loads, on=keys)
    assert len(both) == len(costs) == 2 * 2 * 2 * len(VARIANTS)
    price = both["machine"].map({"cpu-amx": 0.4, "arm": 0.1})
    expected = price / 3600 * 1e6 / both["throughput_tokens_per_s_y"]
    pd.testing.assert_series_equal(both["cost_per_million_tokens"], expected, check_names=False)
    low, cost, high = (costs[f"cost_per_million_tokens{end}"] for end in ("_low", "", "_high"))
    assert cost.between(low, high).all()
    best = costs[costs["cheapest"] == "yes"].set_index("model")
    assert sorted(best.index) == ["tiny-a", "tiny-b"] and set(best["machine"]) == {"arm"}
    admitted = costs[~(costs["degradation_pct"] > 10)]  # the widest of the default scenarios
    assert (best["cost_per_million_tokens"] == admitted.groupby("model")["cost_per_million_tokens"].min()).all()


def test_the_cheapest_is_one_that_a_scenario_would_admit():
    line = {"machine": "arm", "model": "m", "load": "standard", "status": "ok", "deployable": "yes"}
    rows = [
        {**line, "variant": "good", "degradation_pct": 3.0},
        {**line, "variant": "open", "degradation_pct": math.nan},
        {**line, "variant": "ruined", "degradation_pct": 108.0},
    ]
    speeds = {"good": 20.0, "open": 10.0, "ruined": 40.0}
    ends = ("", "_low", "_high")
    loads = [{**row, **{f"throughput_tokens_per_s{end}": speeds[row["variant"]] for end in ends}} for row in rows]
    most = prices.most_degradation(parse({"a": {"objective": "speed", "max_degradation_pct": 10}}))
    found = prices.table(rows, loads, {"arm": 0.1}, most)
    assert {entry["variant"]: entry["cheapest"] for entry in found} == {"good": "yes", "open": "no", "ruined": "no"}
    assert "as good (" in prices.sentence(found, most) and "ruined" not in prices.sentence(found, most)
    assert prices.most_degradation(parse({"a": {"objective": "speed"}})) == math.inf
    assert [e["variant"] for e in prices.table(rows, loads, {"arm": 0.1}) if e["cheapest"] == "yes"] == ["ruined"]


def test_the_studys_hardware_is_answered_where_it_was_measured_and_else_not(tables):
    table = pd.read_csv(tables / "study_hardware.csv").set_index("hardware")
    assert table.loc["Legacy (Tesla T4)", "bears_out"] == "not measured"
    assert table.loc["Modern (A100/H100)", "bears_out"] == "not measured"
    edge = table.loc["Edge"]
    assert set(edge["machine"]) == {"arm"} and set(edge["bears_out"]) == {"an aim: see the cells"}
    assert edge["smallest"].str.contains("onnx-int8-kv|bnb-int8").all()


def test_a_card_answers_by_its_name_or_by_the_configs_word(tmp_path):
    study = synthetic.write(tmp_path, variants=GPU, machine="t4", environment=CARD)
    summarize([*study.flags(tmp_path / "tables"), "--machines", json.dumps({"t4": KINDS["t4"]})])
    decide(["--tables", str(tmp_path / "tables"), "--output", str(tmp_path / "tables")])
    legacy = pd.read_csv(tmp_path / "tables" / "study_hardware.csv").iloc[0]
    assert (legacy["machine"], legacy["model"], legacy["bears_out"]) == (
        "t4",
        "tiny-a",
        "no",
    )  # no ONNX Runtime was run
    for machine, found in (
        ({"gpu": "NVIDIA A100-SXM4-80GB"}, "modern"),
        ({"gpu": "NVIDIA H200"}, None),
        ({"gpu": "NVIDIA H200", "hardware": "modern"}, "modern"),
        ({"gpu": float("nan"), "hardware": float("nan")}, None),
    ):
        assert hardware.kind_of(machine) == found


def test_without_prices_there_is_no_cost_and_no_line_of_it(tmp_path):
    free = {name: {key: value for key, value in kind.items() if key != "price_per_hour"}
            for name, kind in synthetic.KINDS.items()}  # fmt: skip
    study = synthetic.write_machines(tmp_path, variants=VARIANTS[:2])
    summarize([*study.flags(tmp_path / "tables"), "--machines", json.dumps(free)])
    decide(["--tables", str(tmp_path / "tables"), "--output", str(tmp_path / "tables")])
    assert pd.read_csv(tmp_path / "tables" / "costs.csv").empty
    assert "million tokens" not in "".join(json.loads((tmp_path / "tables" / "decision.json").read_text())["answer"])


def test_a_question_in_the_terminal_is_answered_for_each_machine(tables, capsys):
    decide(["--tables", str(tables), "--max-degradation-pct", "5"])
    said = capsys.readouterr().out
    assert said.index("On cpu-amx:") < said.index("On arm:")
