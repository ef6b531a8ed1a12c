"""Export, the quantizers and the engines on tiny models, each against a slow and obvious oracle."""

import json
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests import tiny
from workflow.tradeoff import engines, files
from workflow.tradeoff.engines.onnx_graph import graph_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import dynamic, export, matmul_nbits, onnx_file, quantize
from workflow.tradeoff.variants import VARIANTS, build

KINDS = ("gpt2", "llama")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Folders by kind: ``model``, the exports, and what the quantizers make of them, named as in a study."""
    root = tmp_path_factory.mktemp("artifacts")
    for kind in KINDS:
        model = tiny.build(root / kind / "model", kind)
        files.write_manifest(model, source={})
        for past in ("", "-kv"):
            flags = ["--cache"] if past else []
            source = root / kind / f"onnx-fp32{past}"
            export.main(["--model-folder", str(model), *flags, "--threads", "1", "--output", str(source)])
            for variant in ("onnx-int8-kv", "onnx-int4-kv") if past else ("onnx-int8",):
                make(source, VARIANTS[variant], root / kind / VARIANTS[variant].artifact)
    return root


def make(source, variant, target):
    recipe = json.dumps(dict(variant.recipe))
    quantize.main(["--input", str(source), "--recipe", recipe, "--output", str(target)])


def file(artifacts, kind, variant):
    return artifacts / kind / VARIANTS[variant].artifact / "model.onnx"


def engine(artifacts, kind, variant):
    chosen = VARIANTS[variant]
    return engines.load(chosen, artifacts / kind / chosen.artifact, artifacts / kind / "model", "cpu", 1)


def weights(path):
    graph = onnx.load(path).graph
    return graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past", ["", "-kv"])
def test_the_export_says_how_close_it_is_to_torch(artifacts, kind, past):
    parity = files.read_manifest(artifacts / kind / f"onnx-fp32{past}")["parity"]
    assert parity["max_abs_difference"] < 1e-3
    assert parity["same_top"] == 1 and parity["greedy_agrees"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-fp32-kv"])
def test_every_engine_gives_torchs_tokens_and_logits(artifacts, kind, variant):
    ids = torch.arange(12)[None] * 7 % tiny.VOCAB
    reference, found = engine(artifacts, kind, "torch-fp32"), engine(artifacts, kind, variant)
    assert torch.equal(found.generate(ids, 12), reference.generate(ids, 12))
    batch = torch.stack([ids[0], ids[0].flip(0)])
    # float32 sums in another order
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
@pytest.mark.parametrize("variant", ["torch-fp32", "onnx-fp32-kv", "onnx-int4-kv"])
def test_each_row_of_a_batch_is_what_it_is_alone(artifacts, kind, variant):
    """Logits of whole sequences, and greedy tokens from the cache."""
    loaded = engine(artifacts, kind, variant)
    assert not getattr(loaded, "one_at_a_time", "")
    ids = (torch.arange(36).reshape(3, 12) * 7919 + 1) % tiny.VOCAB
    tokens = [loaded.prefill(ids)]
    for _ in range(6):
        tokens.append(loaded.decode(tokens[-1]))
    alone = torch.cat([loaded.generate(row[None], 7) for row in ids])
    assert torch.equal(torch.cat(tokens, dim=1), alone[:, 12:])
    rows = torch.cat([loaded.score(row[None]) for row in ids])
    torch.testing.assert_close(loaded.score(ids), rows, atol=1e-4, rtol=1e-4)


def test_without_past_keys_and_values_there_is_no_batch(artifacts):
    assert "nobody serves a batch" in engine(artifacts, "llama", "onnx-fp32").one_at_a_time


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["onnx-int8", "onnx-int8-kv", "onnx-int4-kv"])
def test_every_linear_weight_is_quantized_gpt2s_gemm_among_them(artifacts, kind, name):
    proof = graph_proof(file(artifacts, kind, name), 0 if "int4" in name else 8)
    assert proof["quantized_fraction"] == 1.0
    assert set(proof["weights_by_bits"]) == ({"4", "8"} if "int4" in name else {"8"})
    float32 = graph_proof(file(artifacts, kind, "onnx-fp32-kv"), 8)
    assert proof["linear_weights"] == float32["linear_weights"]
    assert float32["quantized_fraction"] == 0.0


def test_a_matrix_that_stayed_in_float_is_seen(artifacts, tmp_path):
    """Planted: the quantizer is told to leave the matrix products alone."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(file(artifacts, "llama", "onnx-fp32"), tmp_path / "model.onnx", op_types_to_quantize=["Gather"])
    assert graph_proof(tmp_path / "model.onnx", 8)["quantized_fraction"] == 0.0


def test_dynamic_int8_rounds_each_weight_to_the_nearest_step_of_its_matrix(artifacts):
    graph, quantized = weights(file(artifacts, "llama", "onnx-int8-kv"))
    _, original = weights(file(artifacts, "llama", "onnx-fp32-kv"))
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

    source = file(artifacts, kind, "onnx-fp32-kv")
    recipe = {**VARIANTS["onnx-int8-kv"].recipe, "per_channel": per_channel}
    dynamic.quantize(source, tmp_path / "ours.onnx", recipe)
    quantize_dynamic(source, tmp_path / "oracle.onnx", weight_type=QuantType.QInt8, per_channel=per_channel)
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "oracle.onnx").read_bytes()


@pytest.mark.parametrize("variant", ["onnx-int8-kv", "onnx-int4-kv"])
def test_a_large_model_stays_in_external_data_and_is_the_same(artifacts, tmp_path, monkeypatch, variant):
    monkeypatch.setattr(onnx_file, "LARGE", 0)
    make(artifacts / "gpt2" / "onnx-fp32-kv", VARIANTS[variant], tmp_path / "large")
    listed = files.read_manifest(tmp_path / "large")["files"]
    assert set(listed) == {"model.onnx", "model.onnx.data"}
    (_, expected), (_, found) = weights(file(artifacts, "gpt2", variant)), weights(tmp_path / "large" / "model.onnx")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_int4_rounds_each_weight_to_the_nearest_step_of_its_block(artifacts, tmp_path):
    """The oracle unpacks the nibbles by hand: two weights a byte, low one first, 8 is zero, blocks of 32 along K."""
    recipe = {"quantizer": "matmul-nbits", "bits": 4}
    make(artifacts / "llama" / "onnx-fp32-kv", build("own", {"engine": "onnx", "recipe": recipe}), tmp_path / "own")
    graph, quantized = weights(tmp_path / "own" / "model.onnx")
    _, original = weights(file(artifacts, "llama", "onnx-fp32-kv"))
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


@pytest.mark.parametrize(
    ("kind", "wide"),
    [
        ("llama", ["0/mlp/down_proj", "0/self_attn/v_proj", "1/mlp/down_proj", "1/self_attn/v_proj", "lm_head"]),
        ("gpt2", ["0/attn/c_attn", "0/mlp/c_proj", "1/attn/c_attn", "1/mlp/c_proj", "lm_head"]),
    ],
)
def test_a_mixed_recipe_keeps_8_bits_where_it_says_so_and_there_alone(artifacts, tmp_path, kind, wide):
    """Of two layers the rule of llama.cpp's mixes takes each: none is in the first eighth, the last is in the last."""
    for which in ("head", "mix"):
        recipe = {"quantizer": "matmul-nbits", "bits": 4, "wider": which}
        made = tmp_path / kind / which
        make(artifacts / kind / "onnx-fp32-kv", build("own", {"engine": "onnx", "recipe": recipe}), made)
        graph, _ = weights(made / "model.onnx")
        told = {
            node.name: attribute.i
            for node in graph.node
            if node.op_type == "MatMulNBits"
            for attribute in node.attribute
            if attribute.name == "bits"
        }
        eight = {name for name, bits in told.items() if bits == 8}
        expected = [part for part in wide if more(part)] if which == "mix" else ["lm_head"]
        assert len(eight) == len(expected) and set(told.values()) == {4, 8}
        assert all(any(part in name for name in eight) for part in expected), eight


def test_a_mix_that_knows_no_layer_says_so(artifacts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(matmul_nbits, "LAYER", re.compile("unheard of"))
    recipe = {"quantizer": "matmul-nbits", "bits": 4, "wider": "mix"}
    make(artifacts / "llama" / "onnx-fp32-kv", build("own", {"engine": "onnx", "recipe": recipe}), tmp_path / "made")
    assert "the head alone keeps 8 bits" in capsys.readouterr().err


def more(part: str) -> bool:
    """Whether the head, or a matrix of one of two layers, is kept wider, by hand."""
    return part == "lm_head" or part.startswith("1")


SETTINGS = [
    {"bits": 4, "block": 128},
    {"bits": 4, "symmetric": False},
    {"bits": 8, "block": 64, "symmetric": False},
    {"bits": 4, "algorithm": "hqq", "block": 64},
    {"bits": 4, "algorithm": "k_quant"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_of_the_weight_only_quantizer_is_in_the_file_and_stays_near_the_weights(
    artifacts, tmp_path, settings
):
    """The oracle multiplies a unit vector by each matrix: what comes out is what the file holds of a weight."""
    variant = build("own", {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", **settings}})
    make(artifacts / "llama" / "onnx-fp32-kv", variant, tmp_path / "own")
    graph, _ = weights(tmp_path / "own" / "model.onnx")
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 15
    for node in products:
        told = {attribute.name: attribute.i for attribute in node.attribute}
        assert told["bits"] == variant.bits and told["block_size"] == variant.recipe["block"]
        assert told["accuracy_level"] == variant.recipe["accuracy_level"]
        zero_points = len(node.input) > 3 and bool(node.input[3])
        assert zero_points != variant.recipe.get("symmetric", False)
    own = engines.load(variant, tmp_path / "own", artifacts / "llama" / "model", "cpu", 1)
    reference = engine(artifacts, "llama", "torch-fp32")
    ids = torch.arange(12)[None] * 7 % tiny.VOCAB
    apart = (own.score(ids) - reference.score(ids)).square().mean().sqrt()
    # a block spans some 4 standard deviations: steps of a 15th of it err by 4 / 15 / √12 = 8% of one, and of a 255th by
    # 0.5%; the errors of some 8 products in a row add up as √8; twice that is allowed
    assert 0 < apart < reference.score(ids).std() * 2 * 8**0.5 * (0.005 if variant.bits == 8 else 0.08)


def test_dynamic_int8_takes_weights_without_a_sign(artifacts, tmp_path):
    variant = build("own", {"engine": "onnx", "recipe": {"quantizer": "dynamic", "weight_type": "uint8"}})
    make(artifacts / "llama" / "onnx-fp32-kv", variant, tmp_path / "own")
    graph, quantized = weights(tmp_path / "own" / "model.onnx")
    kinds = {quantized[node.input[1]].dtype for node in graph.node if node.op_type == "MatMulInteger"}
    assert kinds == {np.dtype("uint8")}


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


def test_a_variant_that_does_not_run_here_is_data(artifacts):
    with pytest.raises(CellFailure, match="unsupported"):
        engine(artifacts, "llama", "onnx-fp16-kv")
