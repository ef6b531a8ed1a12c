"""What is recommended, and in which words: nothing that nobody serves, nothing slower than the baseline unasked."""

import math
import re

import pytest

from tests import synthetic
from workflow.tradeoff.decide import decision, pareto, scenarios
from workflow.tradeoff.decide.asked import Scenario, parse
from workflow.tradeoff.summarize.__main__ import main as summarize_main
from workflow.tradeoff.variants import VARIANTS


def measured(folder, **options):
    study = synthetic.write(folder / "study", **options)
    summarize_main(study.flags(folder / "tables"))
    return decision.read(folder / "tables")


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    where = {"device": "cuda", "gpu": {"name": "Test GPU"}, "digest": "f" * 64}
    return measured(tmp_path_factory.mktemp("gpu"), variants=synthetic.GPU_VARIANTS, environment=where)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("cpu"))


def decided(found, **asked):
    rows, resources = found
    return decision.decide(rows, resources, parse(asked or decision.DEFAULT_SCENARIOS), environment={})


def test_a_reference_is_never_recommended_however_fast(gpu):
    found = decided(gpu)
    fastest = max(gpu[0], key=lambda row: row["speedup"])
    assert fastest["variant"].endswith("-graph") and fastest["deployable"] == "no"
    winners = {entry["winner"] for entry in found["scenarios"]}
    winners |= {entry["recommended"] for entry in found["use_cases"]}
    winners |= {entry[word] for entry in found["quality_aware"] for word in ("fastest", "smallest")}
    assert winners and not any(name.endswith("-graph") for name in winners)
    assert "-graph" not in found["hardware"][0]["advice"]
    assert "nothing serves it" in found["scenarios"][0]["refused"]["int8-graph"]


def test_a_reference_stands_beside_the_front_and_beats_nobody(gpu):
    front = {line["variant"]: line for line in decided(gpu)["pareto"]}
    assert front["int8-graph"]["on_front"] == "reference" and front["torch-fp16"]["on_front"] == "yes"
    assert not any("graph" in (line["dominated_by"] or "") for line in front.values())
    assert "INT8" in {line["precision"] for line in decided(gpu)["cost_benefit"]}


def test_nothing_slower_than_the_baseline_is_recommended_unless_memory_was_asked_for(cpu):
    rows = [row for row in cpu[0] if row["variant"] in ("torch-fp32", "bnb-int8")]
    for objective in ("speed", "balanced", "quality"):
        assert scenarios.answer(rows, Scenario("s", objective))["winner"] == "torch-fp32"
    assert scenarios.answer(rows, Scenario("s", "memory"))["winner"] == "bnb-int8"
    assert scenarios.answer(rows, Scenario("s", "balanced", max_memory_gb=0.3))["winner"] == "bnb-int8"
    first = decided((rows, cpu[1]))["answer"][0]
    assert (
        "nothing that can be deployed beats the baseline, so keep torch-fp32 (PyTorch (transformers), 32-bit" in first
    )


def test_a_tie_is_not_called_faster(cpu):
    rows = [row for row in cpu[0] if row["variant"] == "torch-fp32"]
    rows.append({**rows[0], "variant": "torch-bf16", "speedup": 1.001, "speed_verdict": "tie", "memory_mb": 10.0})
    assert "nothing is measurably faster than the baseline; run torch-bf16" in decided((rows, cpu[1]))["answer"][0]


def test_without_accuracy_the_answer_is_by_speed_and_memory_and_says_so(tmp_path):
    faults = {("tiny-a", variant): "random" for variant in synthetic.CPU_VARIANTS}
    found = decided(measured(tmp_path, faults=faults))
    text = " ".join(found["answer"])
    assert "no admissible" not in text and text.count("accuracy is open: no text was scored") == 3
    assert all(entry["winner"] and entry["accuracy"] == "open" for entry in found["scenarios"])


def test_the_answer_explains_its_words(cpu):
    answer = decided(cpu)["answer"]
    assert (
        answer[0].startswith("For everyday use")
        and "run onnx-int8-kv (ONNX Runtime, 8-bit weights and activations)" in answer[1]
    )
    assert (
        "A token is a piece of a word" in answer[3]
        and "For comparison only: onnx-fp32, onnx-int8 (it keeps no past" in answer[4]
    )
    assert "within these limits" in decided(cpu, small={"objective": "speed", "max_memory_gb": 0.001})["answer"][0]


def test_a_reference_without_memory_or_accuracy_does_not_break_the_front():
    row = {"model": "m", "variant": "v", "memory_mb": 1.0, "speedup": 1.0, "deployable": "no"}
    row |= dict.fromkeys(("speedup_low", "speedup_high", "delta_nll", "delta_nll_low", "delta_nll_high"), math.nan)
    assert [line["on_front"] for line in pareto.front([row])] == ["reference"]


def test_every_preset_is_deployed_or_says_why_not():
    for name, variant in VARIANTS.items():
        assert bool(variant.deploy) != bool(variant.reference), name
    assert VARIANTS["onnx-int8-kv"].deploy == "onnxruntime" and "past keys" in VARIANTS["onnx-int8"].reference
    assert VARIANTS["int8-graph"].reference and VARIANTS["bnb-nf4"].deploy == "transformers"


def test_electricity_costs_what_the_counter_showed_at_the_price_of_the_config(cpu):
    rows = [{**row, "joules_per_token": 1.8 if row["variant"] == "torch-fp32" else math.nan} for row in cpu[0]]
    priced = decision.decide(rows, cpu[1], parse(decision.DEFAULT_SCENARIOS), price_per_kwh=0.3)["cost_benefit"]
    lines = {line["precision"]: line for line in priced}
    # 1.8 J a token are 1.8 MJ a million, half a kilowatt-hour
    assert (lines["FP32"]["joules_per_token"], lines["FP32"]["electricity_per_million_tokens"]) == ("1.8", "0.15")
    assert lines["BF16"]["electricity_per_million_tokens"] is None
    assert all(line["electricity_per_million_tokens"] is None for line in decided((rows, cpu[1]))["cost_benefit"])


def test_a_configs_own_scenarios_lead_and_one_that_the_baseline_wins_says_so(cpu):
    own = {name: {"objective": "speed", "max_degradation_pct": 1} for name in ("a-chat", "b-batch", "c", "d", "e", "f")}
    rows = [row for row in cpu[0] if row["variant"] in ("torch-fp32", "bnb-int8")]
    asked = {**own, "memory-constrained": {"objective": "memory"}}
    said = decided((rows, cpu[1]), **asked)["answer"]
    assert [line.split(" (")[0] for line in said[:-2]] == ["a-chat", "b-batch", "c", "d", "e"]
    assert "nothing that can be deployed beats the baseline, so keep torch-fp32" in said[0]
    assert all(line.endswith("): the same as a-chat.") for line in said[1:5])


def test_figures_of_an_answer_have_their_intervals_and_the_whole_process(cpu):
    second = decided(cpu)["answer"][1]
    assert re.search(r"tokens/s, [\d.]+ \[[\d.]+, [\d.]+\] times as fast as the baseline beside it \([\d.]+ \[", second)
    assert "times with the prompt's time counted)" in second and " Times as fast are known to ±" in " ".join(
        decided(cpu)["answer"]
    )
    assert re.search(r"the first token after [\d.]+ ms, ", second) and "word for word the baseline's" in second
    assert re.search(r"MB of weights and cache for \d+ tokens, [\d,.]+ MB the whole process at most", second)
    assert re.search(r"perplexity \+[\d.]+ \[[+-][\d.]+, [+-][\d.]+\] %", second)


def test_a_model_that_came_quantized_is_said_where_the_answer_stands(cpu):
    rows = [row for row in cpu[0] if row["variant"] in ("torch-fp32", "torch-bf16")]
    rows.append({**rows[-1], "variant": "gguf-source", "bits_per_weight": 5.74, "speedup": 3.0, "speedup_low": 2.9})
    assert not any("weights come from" in line for line in decided((rows, cpu[1]))["answer"])
    rows = [{**row, "weights_from": "a GGUF file of 5.7 bits a weight (Q4_1 79%, Q8_0 21%)"} for row in rows]
    answer = decided((rows, cpu[1]))["answer"]
    assert "run gguf-source (llama.cpp, weights as published, 5.7 bits each on average)" in answer[0]
    assert "was fetched as a GGUF file of 5.7 bits a weight (Q4_1 79%, Q8_0 21%)" in answer[3]
    assert "gguf-source is that file itself" in answer[3] and "in no figure here" in answer[3]
    assert "accuracy favours gguf-source from the start" in answer[3]


def test_slow_and_small_is_advised_for_memory_only_where_nothing_faster_is_as_small(cpu):
    rows = [row for row in cpu[0] if row["variant"] in ("torch-fp32", "bnb-int8")]
    assert "for memory only" in decided((rows, cpu[1]))["hardware"][0]["advice"]
    slow = rows[-1]
    better = {**slow, "variant": "gguf-q8_0", "speedup": 3.0, "speed_verdict": "faster", "memory_mb": 0.5}
    advice = decided(([*rows, better], cpu[1]))["hardware"][0]["advice"]
    assert (
        "memory only" not in advice
        and "where tiny-a/gguf-q8_0 is faster and no larger, and by its figure no less" in advice
    )
    worse = {**better, "degradation_pct": slow["degradation_pct"] + 1}
    assert "for memory only" in decided(([*rows, worse], cpu[1]))["hardware"][0]["advice"]
