"""The answers: the front, the scenarios, the tree, and what is said where nothing was measured."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from tests import synthetic
from tests.unit.decide.test_pareto import cell
from workflow.tradeoff.decide import advice, pareto, refusals, scenarios, tree
from workflow.tradeoff.decide import decision as decide
from workflow.tradeoff.decide.__main__ import main as decide_main
from workflow.tradeoff.decide.asked import Scenario, parse
from workflow.tradeoff.errors import UserError


def test_the_front_is_written_for_the_figure(folder):
    table = pd.read_csv(folder / "pareto.csv").set_index(["model", "variant"])
    assert table.loc[("tiny-a", "torch-fp32"), "on_front"] == "no"
    assert table.loc[("tiny-a", "onnx-fp32"), "on_front"] == "reference"
    assert ("tiny-b", "onnx-int8-kv") not in table.index and ("tiny-b", "bnb-nf4") not in table.index


def test_limits_are_held_against_the_worse_end(rows):
    own = [row for row in rows if row["model"] == "tiny-a"]
    row = next(row for row in own if row["variant"] == "onnx-int8-kv")
    between = (row["degradation_pct"] + row["degradation_high_pct"]) / 2
    refused = scenarios.answer(own, Scenario("s", "speed", max_degradation_pct=between))["refused"]
    assert "onnx-int8-kv" in refused and "maybe" in refused["onnx-int8-kv"]
    found = scenarios.answer(own, Scenario("s", "speed", max_degradation_pct=row["degradation_high_pct"]))
    assert found["winner"] == "onnx-int8-kv"


def test_a_gated_cell_never_wins_and_its_reason_is_given(decision):
    for entry in decision["scenarios"]:
        if entry["model"] == "tiny-b":
            assert entry["winner"] != "onnx-int8-kv"
            assert "not_quantized" in entry["refused"]["onnx-int8-kv"]
            assert "another environment" in entry["refused"]["bnb-nf4"]


def test_no_admissible_variant_is_an_answer(rows):
    own = [row for row in rows if row["model"] == "tiny-a"]
    found = scenarios.answer(own, Scenario("s", max_memory_gb=0.001))
    assert found["winner"] is None and "no admissible variant" in found["text"]
    assert set(found["refused"]) == set(synthetic.CPU_VARIANTS)


def test_weights_that_fit_in_a_process_that_does_not(rows):
    own = [row for row in rows if row["model"] == "tiny-a"]
    text = scenarios.answer(own, Scenario("s", max_memory_gb=0.3))["text"]
    assert "whole process peaked at" in text
    assert scenarios.answer(own, Scenario("s", max_memory_gb=0.3, memory="peak"))["winner"] is None


def test_lost_accuracy_that_no_limit_asks_about_is_said(rows, decision):
    own = [row for row in rows if row["model"] == "tiny-a" and row["quality_verdict"] == "worse"]
    assert own and "no limit was set on that" in scenarios.answer(own, Scenario("s"))["text"]
    assert "no limit" not in scenarios.answer(own, Scenario("s", max_degradation_pct=1000))["text"]
    for entry in decision["hardware"][:-1]:
        named = [row for row in rows if row["model"] == entry["model"] and f"/{row['variant']} (" in entry["advice"]]
        assert "perplexity" in entry["advice"] or all(row["variant"] == row["baseline"] for row in named)


def test_the_smallest_weights_in_the_largest_process_are_said(rows):
    own = [row for row in rows if row["model"] == "tiny-a" and row["variant"] in ("bnb-nf4", "torch-fp32")]
    large = [{**row, "peak_mb": 9e3 if row["variant"] == "bnb-nf4" else 2e3} for row in own]
    words = "the whole process peaked at 9.00 GB, the baseline's at 2.00"
    assert words in scenarios.answer(large, Scenario("s", "memory"))["mind"]
    assert "peaked" not in scenarios.answer(own, Scenario("s", "memory"))["mind"]


def test_a_late_first_token_is_said(rows):
    own = [{**row, "ttft_ratio": 3.1, "ttft_ratio_low": 2.9} for row in rows if row["model"] == "tiny-a"]
    assert "first token takes 3.1× the baseline's" in scenarios.answer(own, Scenario("s", "speed"))["mind"]
    late = [{**row, "ttft_ratio_low": 0.9} for row in own]
    assert "first token" not in (scenarios.answer(late, Scenario("s", "speed"))["mind"] or "")


def test_what_rounding_moves_is_no_degradation():
    slow, base = cell("slow", 0.5, 600, 0.0, width=0.02), cell("base", 1.0, 500, 0.0, width=0.0)
    slow |= {"delta_nll": 1e-8, "delta_nll_low": -6e-8, "delta_nll_high": 8e-8}
    base |= {"delta_nll": 0.0, "delta_nll_low": 0.0, "delta_nll_high": 0.0}
    assert [line["on_front"] for line in pareto.front([slow, base])] == ["no", "yes"]


def test_a_measured_size_that_no_scenario_is_about_is_not_called_unmeasured(rows, folder):
    found = decide.decide(rows, decide.read(folder)[1], [Scenario("s", min_parameters=1e15)])
    said = {entry["model_size"]: entry["optimal_variant"] for entry in found["selection_matrix"]}
    assert said["Small (<1B)"] == "not about this size" and said["Large (>6B)"] == "not measured"


def test_scenarios_know_their_sizes(decision):
    asked = {(entry["scenario"], entry["model"]) for entry in decision["scenarios"]}
    assert ("small-model", "tiny-a") in asked and ("small-model", "medium-c") not in asked


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"s": {"objektive": "speed"}}, "unknown key objektive"),
        ({"s": {"objective": "fun"}}, "unknown objective 'fun'"),
        ({"s": {"objective": "speed", "memory": "disk"}}, "weights or peak"),
        ({"s": {"objective": "speed", "max_degradation_pct": math.nan}}, "max_degradation_pct is nan: give a number"),
        ({"s": {"objective": "speed", "max_memory_gb": "4"}}, "max_memory_gb is '4'"),
        ({"s": 3}, "s is 3: give an objective"),
    ],
)
def test_bad_scenarios_are_one_line(data, words):
    with pytest.raises(UserError, match=words):
        parse(data)


def test_quality_aware_selection_meets_its_bound(decision, rows):
    known = {(row["model"], row["variant"]): row for row in rows}
    for line in decision["quality_aware"]:
        for name in ("fastest", "smallest"):
            chosen = known[line["model"], line[name]]
            assert chosen["degradation_high_pct"] <= line["max_degradation_pct"]


def test_the_tree_is_learned_and_empty_branches_say_so(decision):
    text = "\n".join(decision["tree"])
    assert "├─ Small (<1B)" in text and "└─ Large (>6B): not measured" in text and "cuda: not measured" in text
    assert "[tiny-a/" in text


def test_a_tree_splits_by_what_tells_most():
    examples = [
        {"size?": size, "need?": need, "answer": "x" if need == "speed" else "y", "cell": f"{size}/{need}"}
        for size in ("small", "large")
        for need in ("speed", "memory")
    ]
    learned = tree.learn(examples, {"size?": ["small", "large"], "need?": ["speed", "memory"]})
    assert learned["question"] == "need?"
    assert learned["branches"]["speed"] == {"answers": {"x": ["small/speed", "large/speed"]}}
    assert tree.draw(learned) == [
        "1. need?",
        "   ├─ speed: x [small/speed, large/speed]",
        "   └─ memory: y [small/memory, large/memory]",
    ]


def test_the_matrix_says_what_was_not_measured(decision):
    large = [line for line in decision["selection_matrix"] if line["model_size"].startswith("Large")]
    assert [(line["scenario"], line["optimal_variant"]) for line in large] == [("any", "not measured")]
    medium = {line["scenario"]: line for line in decision["selection_matrix"] if line["model_size"][:6] == "Medium"}
    assert medium["small-model"]["optimal_variant"] == "not about this size"


def test_advice_cites_cells(decision):
    for entry in [*decision["hardware"][:-1], *decision["use_cases"], *decision["scenarios"]]:
        assert f"{entry['model']}/" in (entry.get("advice") or entry["cell"])
    for entry in decision["quality_aware"]:
        assert f"{entry['model']}/{entry['fastest']} (" in entry["fastest_cell"]
        assert f"{entry['model']}/{entry['smallest']} (" in entry["smallest_cell"]
    for entry in decision["selection_matrix"]:
        assert entry["optimal_variant"] in ("not measured", "not about this size") or "/" in entry["cells"]
    assert decision["hardware"][-1]["advice"].startswith("not measured")


def test_advice_is_short_and_the_whole_sentence_stands_nowhere_else(decision):
    for entry in decision["scenarios"]:
        assert len(entry["cell"]) < 100 and entry["cell"] != entry["text"]
    for lines in (decision["use_cases"], decision["quality_aware"], decision["selection_matrix"]):
        assert not any("of weights and cache" in str(value) for line in lines for value in line.values())
    assert all(len(line) < 480 for line in decision["answer"])


def test_what_it_takes_to_make_each_file_is_in_the_costs(rows):
    made = [("export", "onnx-fp32-kv", 40.0), ("quantize", "onnx-dynamic-kv", 10.0), ("gguf", "gguf-q8_0", 23.0)]
    resources = pd.DataFrame([{"rule": rule, "of": f"m_{name}", "s": s} for rule, name, s in made])
    own = [{**rows[0], "model": "m", "variant": name} for name in ("torch-fp32", "onnx-int8-kv", "gguf-q8_0")]
    table = {line["precision"]: line["prepare_s"] for line in advice.cost_benefit(own, resources)}
    assert table == {"FP32": "0", "ONNX KV Cache INT8": "50", "GGUF Q8_0": "23"}


def test_refusals_stand_together_under_what_they_fail(rows):
    own = [row for row in rows if row["model"] == "tiny-b"]
    words = scenarios.answer(own, Scenario("s", "speed", max_degradation_pct=6))["refused_short"]
    assert "not quantized: onnx-int8-kv" in words and "not comparable with the baseline: bnb-nf4" in words
    assert "degradation may exceed 6%: onnx-int4-kv (13" in words
    assert "planted" not in words and "machine.cpu" not in words  # these stand once, with the cell
    words = scenarios.answer(own, Scenario("s", min_tokens_per_s=30, max_memory_gb=0.2))["refused_short"]
    assert "below 30 tokens/s: bnb-int8 (" in words and "weights and cache above 0.2 GB: torch-fp32 (0.329 GB)" in words
    assert refusals.refused_words({}) is None


def test_cells_in_words_stand_together_by_variant():
    cells = [{"model": model, "variant": variant} for model, variant in (("m", "a"), ("n", "a"), ("n", "b"))]
    assert advice.by_variant(cells) == "a (m, n), b (n)" and advice.by_variant([]) == "none"


def test_ranges_in_the_cost_table():
    assert advice.span([1.0, 2.5, math.nan], "{:.1f}×") == "1.0× to 2.5×"
    assert advice.span([math.nan], "{:.1f}") is None


def test_the_answer_has_five_lines_and_every_number_is_finite(decision, folder):
    assert len(decision["answer"]) == 5
    assert "NaN" not in (folder / "decision.json").read_text()


def test_the_only_model_is_not_repeated_after_each_variant(rows, folder):
    own = [{**row, "speed_verdict": "slower"} for row in rows if row["model"] == "tiny-a"]
    found = decide.decide(own, decide.read(folder)[1], [Scenario("s")])["answer"][-1]
    assert "onnx-int8" in found and "(tiny-a" not in found


def test_people_get_a_table_without_torch(folder):
    flags = ["--tables", str(folder), "--max-memory-gb", "0.3", "--max-degradation-pct", "6"]
    code = (
        "import sys; from workflow.tradeoff.decide.__main__ import main; main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'matplotlib', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert "best" in done.stdout and "tiny-a/onnx-int8-kv" in done.stdout


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much"])
@pytest.mark.parametrize("flag", ["--max-memory-gb", "--min-tokens-per-s", "--max-degradation-pct"])
def test_a_limit_that_cannot_be_meant(folder, capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        decide_main(["--tables", str(folder), f"{flag}={value}"])
    assert stop.value.code and flag in capsys.readouterr().err + str(stop.value.code)


def test_missing_tables_are_one_line(tmp_path):
    with pytest.raises(UserError, match="run the study first"):
        decide_main(["--tables", str(tmp_path)])
