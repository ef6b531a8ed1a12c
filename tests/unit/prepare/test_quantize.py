"""Export, the quantizers and the engines on tiny models, each against a slow and obvious oracle."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests import tiny
from workflow.tradeoff import engines, files
from workflow.tradeoff.engines.onnx import profile_proof
from workflow.tradeoff.engines.onnx_graph import graph_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import export, quantize
from workflow.tradeoff.variants import VARIANTS

KINDS = ("gpt2", "llama")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Folders by kind: ``model``, ``fp32``, ``fp32-kv``, and what the quantizers make of them."""
    root = tmp_path_factory.mktemp("artifacts")
    for kind in KINDS:
        model = tiny.build(root / kind / "model", kind)
        files.write_manifest(model, source={})
        for past in ("", "-kv"):
            flags = ["--cache"] if past else []
            source = root / kind / f"fp32{past}"
            export.main(["--model-folder", str(model), *flags, "--threads", "1", "--output", str(source)])
            for precision in ("int8", "int4") if past else ("int8",):
                target = root / kind / f"{precision}{past}"
                quantize.main(["--input", str(source), "--precision", precision, "--output", str(target)])
    return root


def engine(artifacts, kind, variant):
    chosen = VARIANTS[variant]
    return engines.load(chosen, artifacts / kind / chosen.artifact, artifacts / kind / "model", "cpu", 1)


def weights(path):
    graph = onnx.load(path).graph
    return graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past", ["", "-kv"])
def test_the_export_says_how_close_it_is_to_torch(artifacts, kind, past):
    parity = files.read_manifest(artifacts / kind / f"fp32{past}")["parity"]
    assert parity["max_abs_difference"] < 1e-3
    assert parity["same_top"] == 1 and parity["greedy_agrees"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp32-kv"])
def test_every_engine_gives_torchs_tokens_and_logits(artifacts, kind, variant):
    ids = torch.arange(12)[None] * 7 % tiny.VOCAB
    reference, found = engine(artifacts, kind, "torch-fp32"), engine(artifacts, kind, variant)
    assert torch.equal(found.generate(ids, 12), reference.generate(ids, 12))
    batch = torch.stack([ids[0], ids[0].flip(0)])
    torch.testing.assert_close(found.score(batch, 5), reference.score(batch, 5), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "variant", ["torch-fp32", "onnx-fp32", "onnx-fp32-kv", "onnx-int8-kv", "onnx-int4-kv", "bnb-nf4"]
)
def test_decoding_step_by_step_is_the_argmax_of_the_whole_sequence_again(artifacts, variant):
    """The oracle has no cache: each token is the argmax over a full pass. INT8 scales differ by length: fp only."""
    loaded = engine(artifacts, "llama", variant)
    ids = torch.arange(9)[None] * 5 % tiny.VOCAB
    tokens = [loaded.prefill(ids)]
    for _ in range(4):
        tokens.append(loaded.decode(tokens[-1]))
    if "int8" in variant:
        assert torch.cat(tokens, 1).shape == (1, 5)
        return
    for count, token in enumerate(tokens):
        whole = torch.cat([ids, *tokens[:count]], dim=1)
        assert loaded.score(whole)[0, -1].argmax() == token.item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["int8", "int8-kv", "int4-kv"])
def test_every_linear_weight_is_quantized_gpt2s_gemm_among_them(artifacts, kind, name):
    proof = graph_proof(artifacts / kind / name / "model.onnx", 4 if "int4" in name else 8)
    assert proof["quantized_fraction"] == 1.0
    float32 = graph_proof(artifacts / kind / "fp32-kv" / "model.onnx", 8)
    assert proof["linear_weights"] == float32["linear_weights"]
    assert float32["quantized_fraction"] == 0.0


def test_a_matrix_that_stayed_in_float_is_seen(artifacts, tmp_path):
    """Planted: the quantizer is told to leave the matrix products alone."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(
        artifacts / "llama" / "fp32" / "model.onnx", tmp_path / "model.onnx", op_types_to_quantize=["Gather"]
    )
    assert graph_proof(tmp_path / "model.onnx", 8)["quantized_fraction"] == 0.0


def test_dynamic_int8_rounds_each_weight_to_the_nearest_step_of_its_matrix(artifacts):
    graph, quantized = weights(artifacts / "llama" / "int8-kv" / "model.onnx")
    _, original = weights(artifacts / "llama" / "fp32-kv" / "model.onnx")
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 15  # 7 in each of 2 layers, and the head
    for node in products:
        name = node.input[1].removesuffix("_quantized")
        scale, zero = quantized[f"{name}_scale"], quantized[f"{name}_zero_point"]
        restored = (quantized[node.input[1]].astype(np.float64) - zero) * scale
        assert np.abs(restored - original[name]).max() <= scale / 2 * 1.001


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_int8_is_what_onnx_runtime_makes_of_a_model_in_memory(artifacts, tmp_path, kind, per_channel):
    """The oracle holds the whole model three times; ours reads a weight when its turn comes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = artifacts / kind / "fp32-kv" / "model.onnx"
    quantize.dynamic_int8(source, tmp_path / "ours.onnx", per_channel, False)
    quantize_dynamic(source, tmp_path / "oracle.onnx", weight_type=QuantType.QInt8, per_channel=per_channel)
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "oracle.onnx").read_bytes()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_large_model_stays_in_external_data_and_is_the_same(artifacts, tmp_path, monkeypatch, precision):
    monkeypatch.setattr(quantize, "LARGE", 0)
    source, small = artifacts / "gpt2" / "fp32-kv", artifacts / "gpt2" / f"{precision}-kv"
    quantize.main(["--input", str(source), "--precision", precision, "--output", str(tmp_path / "large")])
    listed = files.read_manifest(tmp_path / "large")["files"]
    assert set(listed) == {"model.onnx", "model.onnx.data"}
    (_, expected), (_, found) = weights(small / "model.onnx"), weights(tmp_path / "large" / "model.onnx")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_int4_rounds_each_weight_to_the_nearest_step_of_its_block(artifacts):
    """The oracle unpacks the nibbles by hand: two weights a byte, low one first, 8 is zero, blocks of 32 along K."""
    graph, quantized = weights(artifacts / "llama" / "int4-kv" / "model.onnx")
    _, original = weights(artifacts / "llama" / "fp32-kv" / "model.onnx")
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 15
    for node in products:
        name = node.input[1].split("_Q4")[0]
        packed, scales = quantized[node.input[1]], quantized[node.input[2]]
        columns, blocks, _ = packed.shape
        nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(columns, blocks, 32).astype(np.float64) - 8
        scales = scales.reshape(columns, blocks, 1)
        restored = (nibbles * scales).reshape(columns, blocks * 32).T[: original[name].shape[0]]
        steps = np.repeat(np.abs(scales[..., 0]), 32, axis=1).T[: original[name].shape[0]]
        # the largest weight of a block may be clipped by one step: a nibble reaches from -8 to 7
        assert (np.abs(restored - original[name]) <= steps * 1.001).all()
        used = steps > 0  # the padding token's row of a tied head is all zero
        assert np.median(np.abs(restored - original[name])[used] / steps[used]) < 0.5


def test_bitsandbytes_says_what_it_quantized(artifacts):
    for variant in ("bnb-int8", "bnb-nf4"):
        proof = engine(artifacts, "gpt2", variant).proof()
        head = tiny.VOCAB * 64
        assert proof["linear_quantized"] == proof["linear_weights"] - head  # it leaves the head alone


def test_the_onnx_proof_lists_providers_and_nodes(artifacts):
    proof = engine(artifacts, "llama", "onnx-int8-kv").proof()
    assert list(proof["providers"]) == ["CPUExecutionProvider"]
    assert proof["nodes"]["MatMulInteger"] == 15 and proof["nodes"]["DynamicQuantizeLinear"] > 0
    assert proof["memcpy"] == 0 and proof["heavy_elsewhere"] == {} and proof["cache"]


def test_a_heavy_node_on_another_provider_is_seen():
    def event(name, op, provider):
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": op, "provider": provider}}

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    events = [event("a", "MatMul", cuda), event("b", "MatMulInteger", cpu), event("c", "MemcpyToHost", cuda)]
    found = profile_proof(events * 2, cuda)
    assert found["heavy_elsewhere"] == {"MatMulInteger": 1}
    assert found["memcpy"] == 1 and found["providers"] == {cuda: 2, cpu: 1}


def test_a_variant_that_does_not_run_here_is_data(artifacts):
    with pytest.raises(CellFailure, match="unsupported"):
        engine(artifacts, "llama", "onnx-fp16-kv")


def test_the_cache_takes_the_bytes_that_the_study_lists():
    from workflow.tradeoff.engines.hf import cache_bytes

    class Config:
        num_hidden_layers, num_attention_heads, num_key_value_heads, hidden_size, head_dim = 22, 32, 4, 2048, 64

    assert cache_bytes(Config, 2, 1) == 22528  # TinyLlama, FP16
