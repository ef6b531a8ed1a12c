"""Each gate lets a sound cell pass and names what is wrong with a planted fault."""

import math

import pytest

from tests import synthetic
from workflow.tradeoff.summarize import gates
from workflow.tradeoff.variants import VARIANTS, build


def test_a_conv1d_model_that_quantizers_skip_is_not_quantized():
    # GPT-2 exports its Conv1D as Gemm, which several quantizers leave alone
    reason = gates.not_quantized(VARIANTS["onnx-int8"], {"quantized_fraction": 0.31})
    assert reason == "only 31% of the linear weights are 8-bit"


def test_what_a_quantizer_left_alone_is_named():
    left = {"layers.*.experts.gate_up_proj": 600, "layers.*.experts.down_proj": 300, "lm_head": 40, "layers.*.gate": 10}
    proof = {"quantized_fraction": 0.05, "linear_weights": 1000, "left_unquantized": left}
    assert gates.not_quantized(VARIANTS["bnb-int8"], proof) == (
        "only 5% of the linear weights are 8-bit: layers.*.experts.gate_up_proj (60%), "
        "layers.*.experts.down_proj (30%), lm_head (4%) and 1 more are left as they were"
    )


@pytest.mark.parametrize("fraction", [0.5, 0.9, 1.0])
def test_mostly_quantized_passes(fraction):
    assert gates.not_quantized(VARIANTS["bnb-nf4"], {"quantized_fraction": fraction}) is None


def test_a_float_variant_needs_no_quantization():
    assert gates.not_quantized(VARIANTS["torch-bf16"], {"quantized_fraction": 0.0}) is None


def test_a_quantized_variant_without_proof_does_not_pass():
    assert "no quantized_fraction" in gates.not_quantized(VARIANTS["bnb-int8"], {})


def test_heavy_nodes_elsewhere_fell_back():
    assert "MatMulInteger" in gates.fell_back({"heavy_elsewhere": ["MatMulInteger", "MatMulInteger"]}, "cuda")
    assert gates.fell_back({"heavy_elsewhere": []}, "cuda") is None


def test_parameters_on_another_device_fell_back():
    assert "1,000 parameters are on cpu" in gates.fell_back({"parameters": {"float16@cpu": 1000}}, "cuda")
    assert gates.fell_back({"parameters": {"float16@cuda:0": 1000}}, "cuda") is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_nll_that_is_no_number_diverged(value):
    assert "not numbers" in gates.diverged([3.0, value], 0.1, 0.1)


def test_distance_beyond_reason_diverged():
    assert "KL" in gates.diverged([3.0], 2.5, 0.1)
    assert "NLL" in gates.diverged([3.0], None, -2.5)
    assert gates.diverged([3.0], 0.5, 0.5) is None
    assert gates.diverged([3.0], 0.5, 0.5, kl_most=0.4)


def test_environments_differ_by_what_is_compared_alone():
    one = synthetic.ENVIRONMENT
    other = {**one, "git": {"commit": "f" * 40, "dirty": True}, "digest": "0" * 64}
    assert gates.environment_differences(one, other) == []
    other = {**one, "threads": 2, "machine": {**one["machine"], "cpu": "B"}}
    assert gates.environment_differences(one, other) == [
        "machine.cpu: Test CPU @ 2.0 GHz | B",
        "threads: 1 | 2",
    ]


def test_an_engine_says_what_it_counts_as_quantized():
    proof = {
        "quantized_fraction": 0.2,
        "counted": "of types of at most 6 bits (llama.cpp's mix comes to 8.1 bits a weight)",
    }
    reason = gates.not_quantized(VARIANTS["gguf-q6_k"], proof)
    assert reason.startswith(
        "only 20% of the linear weights are of types of at most 6 bits (llama.cpp's mix comes to 8.1"
    )
    assert gates.not_quantized(VARIANTS["gguf-q4_k_m"], {"quantized_fraction": 0.78}) is None
    assert gates.not_quantized(VARIANTS["gguf-f16"], {"quantized_fraction": 0.0}) is None


def growth(step_s, pass_s):
    return {"cache": True, "cache_growth": {"lengths": [32, 256], "step_s": step_s, "pass_s": pass_s}}


@pytest.mark.parametrize(
    ("step_s", "pass_s"),
    [
        ([0.030, 0.033], [0.2, 1.5]),  # one core, a model of 135M
        ([0.004, 0.0042], [0.004, 0.0045]),  # a card that waits for launches: the pass does not grow
        ([0.010, 0.012], [0.012, 0.024]),  # a step that is nearly the short pass, and keeps its cost
        ([0.010, 0.016], [0.02, 0.1]),  # a long cache to read
    ],
)
def test_a_step_that_keeps_its_cost_is_cached(step_s, pass_s):
    assert gates.not_cached(VARIANTS["onnx-fp32-kv"], growth(step_s, pass_s)) is None


def test_keys_and_values_of_another_type_are_said():
    kept = build("kv8", {"engine": "llamacpp", "recipe": {"quantizer": "gguf", "type": "q8_0"},
                         "options": {"cache_type": "q8_0"}})  # fmt: skip
    assert gates.other_cache(kept, {"cache_type": "q8_0"}) is None
    assert gates.other_cache(kept, {"cache_type": "f16"}) == "keys and values are kept in f16, not in q8_0"
    assert "nothing shows" in gates.other_cache(kept, {})
    assert gates.other_cache(VARIANTS["gguf-q8_0"], {"cache_type": "f16"}) is None


def test_a_step_that_costs_what_a_whole_pass_does_is_not_cached():
    reason = gates.not_cached(VARIANTS["onnx-fp32-kv"], growth([0.21, 1.52], [0.2, 1.5]))
    assert "after 256 tokens takes 1.52e+03 ms" in reason and "not used" in reason
    assert gates.not_cached(VARIANTS["onnx-fp32-kv"], {"cache": False})
    assert gates.not_cached(VARIANTS["onnx-fp32"], growth([0.21, 1.52], [0.2, 1.5]) | {"cache": False}) is None
    assert gates.not_cached(VARIANTS["onnx-fp32-kv"], {"cache_growth": {"step_s": [1, 2]}}) is None
