"""llama.cpp against torch on tiny models, and what it says of itself."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests import tiny
from workflow.tradeoff.engines import hf, llamacpp
from workflow.tradeoff.engines import llamacpp_library as library
from workflow.tradeoff.engines.llamacpp_proof import accepted, cache_values, nominal_bits, widest
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import gguf_convert
from workflow.tradeoff.variants import VARIANTS

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp is not in this environment")


@pytest.fixture(scope="module", params=tiny.KINDS)
def pair(request, tmp_path_factory):
    """torch in float32, and the same weights in a float32 GGUF file, its cache in float32 too."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny.build(folder / "model", request.param)
    gguf_convert.write(model, folder / llamacpp.FILE, "f32", threads=1)
    reference = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", 1)
    return reference, llamacpp.LlamaEngine(folder / llamacpp.FILE, 32, "cpu", 1, 0, llamacpp.EXACT)


IDS = (torch.arange(120).reshape(3, 40) * 7919 + 1) % 256


def test_float32_logits_are_torchs_to_rounding(pair):
    reference, engine = pair
    expected, got = reference.score(IDS), engine.score(IDS)
    assert got.shape == expected.shape == (3, 40, tiny.VOCAB)
    # llama.cpp's GELU, which GPT-2 has, looks float16 values up in a table
    assert (got - expected).abs().max() < (1e-3 if reference.network.config.model_type == "gpt2" else 1e-5)
    assert torch.equal(engine.score(IDS, first=33), got[:, 33:])


def test_scoring_leaves_the_cache_alone_and_decoding_is_greedy(pair):
    reference, engine = pair
    expected = reference.generate(IDS[:1], 9)
    tokens = [engine.prefill(IDS[:1])]
    for _ in range(8):
        engine.score(IDS, first=39)
        tokens.append(engine.decode(tokens[-1]))
    assert torch.equal(torch.cat(tokens, dim=1), expected[:, 40:])


def test_a_batch_of_prompts_gives_what_each_gives_alone(pair):
    _, engine = pair
    assert torch.equal(engine.generate(IDS, 7), torch.cat([engine.generate(row[None], 7) for row in IDS]))


def test_the_logits_of_a_batch_are_those_of_each_sequence_alone(pair):
    _, engine = pair
    token = engine.prefill(IDS)
    batch = engine.decoder.run(token.numpy(), 0)[:, 0]
    for row, (ids, own) in enumerate(zip(IDS, token, strict=True)):
        engine.prefill(ids[None])
        alone = engine.decoder.run(own[None].numpy(), 0)[0, 0]
        np.testing.assert_allclose(batch[row], alone, atol=1e-4)


def test_a_cache_that_is_full_grows(pair):
    reference, engine = pair
    ids = IDS[:1].repeat(1, 3)
    engine.reserved = 0
    engine.decoder = None
    token = engine.prefill(ids)
    room = engine.decoder.length
    tokens = [token]
    while engine.decoder.length == room:
        tokens.append(engine.decode(tokens[-1]))
    assert ids.shape[1] + len(tokens) == room + 2
    sequence = torch.cat([ids, *tokens], dim=1)
    assert reference.score(sequence, first=sequence.shape[1] - 2)[0, 0].argmax() == sequence[0, -1]


def test_the_proof_counts_the_file_and_names_the_build(pair):
    reference, engine = pair
    proof = engine.proof()
    weights = sum(parameter.numel() for parameter in reference.network.parameters())
    assert proof["weights_by_type"] == {"F32": weights} and proof["weight_bytes"] == {"F32": 4 * weights}
    assert proof["parameters"] == {"F32@cpu": weights}
    config = reference.network.config
    table = tiny.VOCAB * 64 * (not config.tie_word_embeddings) + getattr(config, "n_positions", 0) * 64
    assert proof["unread_bytes"] == 4 * table
    linear = reference.proof()["linear_weights"]
    assert (proof["linear_weights"], proof["quantized_fraction"], proof["bits_per_weight"]) == (linear, 1, 32)
    assert engine.cache_bytes(10) == reference.cache_bytes(10)
    assert proof["engine"]["build"] == 11549 and {"avx", "neon"} & set(proof["engine"]["features"])


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16"])
def test_a_score_reads_the_cache_that_a_step_reads(tmp_path, kind):
    """Row by row out of the cache, against one token after the other; and the cache is what was asked for."""
    model = tiny.build(tmp_path / "model", "llama", hidden=128)
    gguf_convert.write(model, tmp_path / llamacpp.FILE, "f32", threads=1)
    engine = llamacpp.LlamaEngine(tmp_path / llamacpp.FILE, 32, "cpu", 1, 0, llamacpp.Cache(kind))
    whole = engine.score(IDS)
    context = engine._new(1, IDS.shape[1])
    steps = np.concatenate([context.run(IDS[:1, place : place + 1].numpy(), 0) for place in range(40)], axis=1)
    context.close()
    # sums of 128 products in another order, after keys and values of one rounding: far below a step of the rounding
    assert np.abs(whole[:1].numpy() - steps).max() < 5e-3 * steps.std()
    assert torch.equal(engine.score(IDS, first=35), whole[:, 35:])
    exact = llamacpp.LlamaEngine(tmp_path / llamacpp.FILE, 32, "cpu", 1, 0, llamacpp.EXACT)
    off = (whole - exact.score(IDS)).square().mean().sqrt() / steps.std()
    # a number of 8 bits is off by at most 1/254 of the largest of its block, one of 4 bits by 1/16
    assert {"f16": 0, "q8_0": 1e-4, "q4_0": 2e-3}[kind] <= off <= {"f16": 1e-3, "q8_0": 1e-2, "q4_0": 0.2}[kind]
    assert engine.proof()["cache_type"] == kind
    assert engine.cache_bytes(32) == {"f16": 64, "q8_0": 34, "q4_0": 18}[kind] * exact.cache_bytes(32) // 128


def test_a_cache_that_llamacpp_cannot_keep_is_unsupported(tmp_path):
    model = tiny.build(tmp_path / "model", "llama")  # heads of 16 numbers, and a block has 32
    gguf_convert.write(model, tmp_path / llamacpp.FILE, "f32", threads=1)
    engine = llamacpp.LlamaEngine(tmp_path / llamacpp.FILE, 32, "cpu", 1, 0, llamacpp.Cache("q8_0"))
    said = r"^unsupported: llama\.cpp made no context of 512 tokens, keys and values in q8_0: llama_init"
    with pytest.raises(CellFailure, match=said):
        engine.prefill(IDS[:1])


def test_features_that_the_build_leaves_unused_are_said(monkeypatch):
    monkeypatch.setattr(library, "_flags", lambda: {"avx2", "avx512f", "avx512_vnni", "fpu"})
    said = library.build()
    assert {"avx512", "avx512_vnni"} - set(said["features"]) == set(said["unused"]) - {"avx2"}


@pytest.mark.parametrize("function, field", [(f, k) for f, known in library.DEFAULTS.items() for k in list(known)[-1:]])
def test_another_layout_is_refused(monkeypatch, function, field):
    found = {key: dict(known) for key, known in library.DEFAULTS.items()}
    found[function][field] = 77
    monkeypatch.setattr(library, "DEFAULTS", found)
    with pytest.raises(CellFailure, match=f"{field} = .*{library.RELEASE}"):
        library.check_layout(library.open_library())


def test_another_release_and_a_missing_one_are_refused(monkeypatch):
    monkeypatch.setattr(library.metadata, "version", lambda _: "2026.1.1")
    with pytest.raises(CellFailure, match=r"unsupported: xllamacpp is 2026\.1\.1, and its structs are known for"):
        library.open_library.__wrapped__()
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CellFailure, match="the package xllamacpp is missing"):
        library.path()


def test_a_broken_file_fails_in_llamacpps_words(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CellFailure, match=r"error: llama\.cpp does not load model\.gguf: .*gguf"):
        llamacpp.LlamaEngine(tmp_path / "model.gguf", 8, "cpu", 1, 0)


def test_a_gpu_is_refused_by_a_build_without_one(tmp_path):
    if not library.open_library().llama_supports_gpu_offload():
        with pytest.raises(CellFailure, match=r"unsupported: this build of llama\.cpp .* has no GPU backend"):
            llamacpp.LlamaEngine(tmp_path / "model.gguf", 8, "cuda", 1, -1)


def test_bits_of_a_type_are_those_in_its_name():
    assert [nominal_bits(name) for name in ("Q4_K", "Q5_1", "IQ4_NL", "Q8_0", "F16", "BF16", "F32")] == [
        4, 5, 4, 8, 16, 16, 32,
    ]  # fmt: skip


def test_a_mix_takes_wider_types_but_not_those_of_an_8_bit_file():
    assert [accepted(name, 4, widest(4)) for name in ("Q4_K", "Q5_0", "Q6_K", "Q8_0", "F16")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert accepted("Q8_0", 8, widest(8)) and not accepted("F16", 8, widest(8))
    assert accepted("F16", 16, 16) and not accepted("Q8_0", 16, 16)
    assert accepted("Q8_0", None, 8) and not accepted("F16", None, 8)


def test_cache_of_a_model_whose_heads_differ_by_layer():
    pairs = {
        "general.architecture": "x", "x.block_count": 2, "x.attention.head_count": [4, 4], "x.embedding_length": 64,
        "x.attention.head_count_kv": [1, 2], "x.attention.key_length": 8,
    }  # fmt: skip
    assert cache_values(pairs) == 3 * (8 + 16)


def test_a_step_that_fails_is_a_failure_of_the_cell(pair):
    _, engine = pair
    context = engine._new(1, 8)
    context.run(np.zeros((1, 8), np.int32), 7)
    with pytest.raises(CellFailure, match="llama_decode answered"):
        context.run(np.full((1, 1), tiny.VOCAB + 5, np.int32), 0)
    context.close()


def test_what_stands_beside_a_figure():
    held = {"linear_by_type": {"Q6_K": 25, "Q5_0": 75}, "linear_weights": 100, "bits_per_weight": 5.76}
    assert llamacpp.remarks(held, {"build": 7, "unused": ["avx512_vnni"]}) == [
        "5.8 bits a weight (Q5_0 75%, Q6_K 25%)",
        "llama.cpp's build 7 does not use what this machine has: avx512_vnni; one that does may be faster",
    ]
    assert llamacpp.remarks(held | {"linear_by_type": {"Q8_0": 100}}, {"build": 7, "unused": []}) == []
