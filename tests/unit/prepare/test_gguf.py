"""GGUF files of tiny models: the mix of types, the bytes, the vocabulary, the check against torch."""

import json
from importlib.util import find_spec

import gguf as package
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests import scored, tiny
from workflow.tradeoff import files
from workflow.tradeoff.engines import hf, llamacpp
from workflow.tradeoff.engines.llamacpp_proof import file_proof
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.gguf_reader import Reader
from workflow.tradeoff.prepare import gguf, gguf_convert, gguf_mix, importance
from workflow.tradeoff.variants import VARIANTS

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp is not in this environment")

SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
FAMILIES = {
    "llama 3": LlamaConfig(**SMALL, rope_scaling=LLAMA3, tie_word_embeddings=True),
    "llama, linear": LlamaConfig(**SMALL, rope_scaling={"rope_type": "linear", "factor": 2.0}, attention_bias=True),
    "mistral": MistralConfig(**SMALL, sliding_window=None, head_dim=32),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=32),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Llama whose rows are whole blocks of 256, so that k-quants are not replaced."""
    folder = tiny.build(tmp_path_factory.mktemp("model") / "wide", "llama-untied", hidden=256, layers=8)
    files.write_manifest(folder, source={})
    return folder


def made(model, folder, mix, *flags):
    recipe = json.dumps({"quantizer": "gguf", "type": mix, "imatrix": bool(flags)})
    gguf.main(["--model-folder", str(model), "--recipe", recipe, "--threads", "1", *flags, "--output", str(folder)])
    return folder / llamacpp.FILE


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_torchs_to_rounding(name, tmp_path):
    with torch.random.fork_rng():
        network = AutoModelForCausalLM.from_config(FAMILIES[name])
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # so that heads, biases and norms differ
    network.save_pretrained(tmp_path / "model")
    assert gguf.check(tmp_path / "model", 1, tmp_path)["relative_difference"] < 1e-4


def test_a_conversion_that_is_not_the_model_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_convert, "matrix", lambda tensor, *_: tensor.float())  # no turning of rotated pairs
    with pytest.raises(CellFailure, match="diverged: the float32 GGUF file does not compute what the model does"):
        made(model, tmp_path / "out", "q8_0")
    assert not (tmp_path / "out").exists()


def test_what_is_not_written_here_is_refused(tmp_path):
    folder = tiny.build(tmp_path / "model", "llama")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"model_type": "phi", "architectures": None}))
    with pytest.raises(CellFailure, match="is a phi, and GGUF files are made here of llama, mistral"):
        gguf_convert.write(folder, tmp_path / "a.gguf", "q8_0", threads=1)
    config = MistralConfig(**SMALL, sliding_window=64)
    with pytest.raises(CellFailure, match="attends to a sliding window"):
        gguf_convert.architecture(config, "m")
    with pytest.raises(CellFailure, match="type 'yarn' are not written"):
        gguf_convert.rope_factors(LlamaConfig(**SMALL, rope_scaling={"rope_type": "yarn", "factor": 4.0}))


def test_the_mix_of_q4_k_m_by_hand():
    assert [layer for layer in range(32) if gguf_mix.more_bits(layer, 32)] == [
        0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31,
    ]  # fmt: skip
    rows = {"token_embd.weight": (512, 256), "output.weight": (512, 256), "output_norm.weight": (256,)}
    for layer in range(8):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            rows[f"blk.{layer}.{part}.bias"] = (256,)  # is no matrix of a block, and does not count as one
            rows[f"blk.{layer}.{part}.weight"] = (256, 256)
    types = gguf_mix.assign(rows, "q4_k_m", layers=8, importance=False)
    wide = {layer for layer in range(8) if gguf_mix.more_bits(layer, 8)}
    assert wide == {0, 3, 6, 7}
    for name, kind in types.items():
        if name == "output_norm.weight" or name.endswith(".bias"):
            assert kind == "F32"
        else:
            kept = any(part in name for part in ("attn_v", "ffn_down")) and int(name.split(".")[1]) in wide
            assert kind == ("Q6_K" if kept or name == "output.weight" else "Q4_K"), name


def test_rows_that_are_no_whole_blocks_take_a_wider_type():
    """SmolLM2-135M: rows of 576 values."""
    assert [gguf_mix.fitting(kind, 576) for kind in ("Q4_K", "Q5_K", "Q6_K", "Q8_0")] == [
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q8_0",
    ]
    assert gguf_mix.fitting("Q4_K", 100) == "F16"
    tied = gguf_mix.assign({"token_embd.weight": (9, 576)}, "q4_k_m", layers=1, importance=False)
    assert tied == {"token_embd.weight": "Q8_0"}


def test_an_importance_matrix_keeps_the_first_down_projections_of_q4_0():
    rows = {f"blk.{layer}.ffn_down.weight": (64, 64) for layer in range(16)}
    with_it = gguf_mix.assign(rows, "q4_0", layers=16, importance=True)
    assert [kind for kind in with_it.values()] == ["Q4_1", "Q4_1"] + ["Q4_0"] * 14


@pytest.mark.parametrize("mix, block, size, bits", [
    ("q8_0", 32, 34, 8), ("q6_k", 256, 210, 6), ("q5_k_m", 256, 176, 5), ("q4_k_m", 256, 144, 4), ("q4_0", 32, 18, 4),
])  # fmt: skip
def test_each_types_proof_is_what_can_be_counted_by_hand(model, tmp_path, mix, block, size, bits):
    file = made(model, tmp_path / mix, mix)
    proof = file_proof(file, bits)
    inner, heads = 512, 128  # of keys and values: 2 heads of 64
    layer = {"q": 256 * 256, "k": heads * 256, "v": heads * 256, "o": 256 * 256, "gate": inner * 256, "up": inner * 256,
             "down": inner * 256}  # fmt: skip
    head = tiny.VOCAB * 256
    kind = gguf_mix.MIXES[mix]
    wide = 4 if mix.endswith("_m") else 0  # of the 8 layers
    expected = {kind: 8 * sum(layer.values()) - wide * (layer["v"] + layer["down"])}
    if mix != "q8_0":
        expected["Q6_K"] = expected.get("Q6_K", 0) + wide * (layer["v"] + layer["down"]) + head
    else:
        expected[kind] += head
    assert proof["linear_by_type"] == expected
    assert proof["linear_weights"] == 8 * sum(layer.values()) + head
    assert proof["quantized_fraction"] == 1
    norms = 17 * 256
    stored = {kind: (expected[kind] + head) // block * size, "F32": 4 * norms}  # the embedding, of which a row is read
    if kind != "Q6_K" and mix != "q8_0":
        stored["Q6_K"] = expected["Q6_K"] // 256 * 210
    assert proof["weight_bytes"] == stored
    assert proof["unread_bytes"] == head // block * size
    manifest = files.read_manifest(tmp_path / mix)
    assert manifest["bits_per_weight"] == pytest.approx(
        8 * (sum(stored.values()) - 4 * norms - head // block * size) / (proof["linear_weights"])
    )
    assert manifest["parity"]["relative_difference"] < 1e-5 and manifest["made_from"]


@pytest.mark.parametrize("mix", ["q8_0", "q4_0"])
def test_the_bytes_are_those_of_gguf_own_quantizer(model, tmp_path, mix):
    file = made(model, tmp_path / mix, mix)
    weights = gguf_convert.weights(model)
    tensor = next(tensor for tensor in Reader(file).tensors if tensor.name == "blk.3.ffn_down.weight")
    rows = weights["model.layers.3.mlp.down_proj.weight"].numpy()
    assert np.array_equal(tensor.data, package.quants.quantize(rows, tensor.tensor_type))


def test_threads_change_no_byte(model, tmp_path):
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    gguf_convert.write(model, one, "q4_k_m", threads=1)
    gguf_convert.write(model, two, "q4_k_m", threads=3)
    assert files.sha256(one) == files.sha256(two)


def test_the_vocabulary_is_written_and_splits_text_as_the_models_own(tmp_path):
    folder = tiny.with_vocabulary(tmp_path / "model")
    said = gguf_convert.write(folder, tmp_path / "a.gguf", "f16", threads=1)
    assert said == {"vocabulary": "gpt-2"}
    fields = Reader(tmp_path / "a.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 320 and tokens[315] == "[PAD315]" and tokens[0] == "<|end|>"
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert kinds[0] == package.TokenType.CONTROL and kinds[315] == package.TokenType.UNUSED


def test_a_vocabulary_that_splits_otherwise_is_left_out(tmp_path, monkeypatch):
    folder = tiny.with_vocabulary(tmp_path / "model")
    monkeypatch.setattr(gguf.gguf_convert.gguf_vocabulary, "splits", lambda _: ["smollm"])
    said = gguf_convert.write(folder, tmp_path / "a.gguf", "f16", threads=1)
    assert said["vocabulary"] is None and "smollm: it splits" in said["why"]
    assert Reader(tmp_path / "a.gguf").fields["tokenizer.ggml.model"].contents() == "no_vocab"


def test_the_file_as_it_came_is_kept_and_its_vocabulary_taken_over(tmp_path):
    folder = tiny.with_vocabulary(tmp_path / "model")
    gguf_convert.write(folder, tmp_path / "came.gguf", "q8_0", threads=1)
    (tmp_path / "came.gguf").rename(folder / "source.gguf")
    files.write_manifest(folder, source={})
    file = made(folder, tmp_path / "kept", "source")
    assert file.read_bytes() == (folder / "source.gguf").read_bytes()
    manifest = files.read_manifest(tmp_path / "kept")
    assert manifest["source"]["type"] == "source" and manifest["weights_by_type"]["Q8_0"] > 0
    assert gguf_convert.write(folder, tmp_path / "b.gguf", "q4_0", threads=1) == {"vocabulary": "of the source file"}
    taken, own = Reader(tmp_path / "b.gguf").fields, Reader(folder / "source.gguf").fields
    for key in own:
        if key.startswith("tokenizer."):
            assert taken[key].contents() == own[key].contents(), key


def test_a_model_without_a_file_of_its_own_has_none_to_keep(model, tmp_path):
    with pytest.raises(CellFailure, match="not_applicable: wide was not fetched as a GGUF file"):
        made(model, tmp_path / "out", "source")


def test_an_importance_matrix_is_the_mean_square_of_what_a_matrix_is_given(tmp_path):
    folder = tiny.build(tmp_path / "model", "llama")
    found = importance.measure(folder, [tiny.TEXT], 1)
    engine = hf.load(VARIANTS["torch-fp32"], folder, folder, "cpu", 1)
    ids = torch.tensor([list(tiny.TEXT.encode())[:512]])
    hidden = engine.network.model(ids, output_hidden_states=True).hidden_states
    normal = engine.network.model.layers[1].input_layernorm(hidden[1])[0]
    assert np.allclose(found["blk.1.attn_q.weight"], normal.square().mean(0).detach(), rtol=1e-4)
    assert {name.split(".")[-2] for name in found} == {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
    }  # fmt: skip


def test_an_importance_matrix_changes_the_bytes_and_is_named(model, tmp_path):
    corpus = str(scored.write_corpus(tmp_path / "scored.json", ["Another text altogether."]))
    text = str(scored.write_corpus(tmp_path / "text.json", tiny.TEXT.splitlines()))
    plain = made(model, tmp_path / "plain", "q4_0")
    weighted = made(model, tmp_path / "weighted", "q4_0", "--calibration", text, "--scored", corpus)
    assert plain.read_bytes() != weighted.read_bytes()
    assert files.read_manifest(tmp_path / "weighted")["importance"]["corpus"] == "text"


def test_a_calibration_text_that_shares_a_line_with_the_scored_one_is_refused(model, tmp_path):
    rows = ["First.\n", "  When the railway came.  ", "Last."]
    corpus = str(scored.write_corpus(tmp_path / "scored.json", rows))
    text = str(scored.write_corpus(tmp_path / "text.json", ["A line", "When the railway came.\n"]))
    with pytest.raises(
        UserError, match="text shares 1 lines with the corpus that is scored, such as 'When the railway"
    ):
        made(model, tmp_path / "out", "q4_0", "--calibration", text, "--scored", corpus)
    with pytest.raises(UserError, match="needs a calibration text, and the corpus"):
        made(model, tmp_path / "out", "q4_0", "--calibration", text)
    (tmp_path / "text.json").write_text((tmp_path / "text.json").read_text().replace("railway", "tramway"))
    with pytest.raises(UserError, match=r"text\.json was changed after it was fetched"):
        made(model, tmp_path / "out", "q4_0", "--calibration", text, "--scored", corpus)
