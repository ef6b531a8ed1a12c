"""The static-cache step against transformers' growing cache, on tiny models; the CUDA graph itself needs a card."""

import dataclasses

import bitsandbytes
import pytest
import torch

from tests import tiny
from workflow.tradeoff.engines import decoder, graph, hf, linear
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import VARIANTS

PROMPT = torch.tensor([list(b"The bridge over the river")])
NEW = 24


@pytest.fixture(scope="module", params=tiny.KINDS)
def model(request, tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "model", request.param, trained=True)


def load(name, model):
    """A graph variant that starts from float32 weights, for the CPU."""
    variant = VARIANTS[name]
    if variant.quantizer == "none":
        variant = dataclasses.replace(variant, recipe={"quantizer": "none", "dtype": "float32"})
    return graph.load(variant, model, model, "cpu", 1)


def test_the_same_tokens_and_scores_as_transformers(model):
    eager = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", 1)
    engine = load("torch-fp16-graph", model)
    assert engine.generate(PROMPT, NEW).tolist() == eager.generate(PROMPT, NEW).tolist()
    ids = torch.cat([PROMPT, PROMPT.flip(1)])
    # float32 sums in another order: 1e-7 of a logit of some tens, through two layers
    torch.testing.assert_close(engine.score(ids, 3), eager.score(ids, 3), atol=1e-4, rtol=1e-4)


def test_returned_tokens_stay_and_a_foreign_token_is_taken(model):
    engine = load("torch-fp16-graph", model)
    expected = engine.generate(PROMPT, 4)[0, -4:].tolist()
    tokens = [engine.prefill(PROMPT)]
    for _ in range(3):
        tokens.append(engine.decode(tokens[-1]))
    assert [int(token) for token in tokens] == expected
    engine.prefill(PROMPT)
    assert int(engine.decode(torch.tensor([[expected[0]]]))) == expected[1]


def test_growing_the_cache_keeps_what_it_holds(model, monkeypatch):
    expected = load("torch-fp16-graph", model).generate(PROMPT, NEW).tolist()
    monkeypatch.setattr(graph, "CAPACITY", 16)
    engine = load("torch-fp16-graph", model)
    token = engine.prefill(PROMPT)
    assert engine.capacity == 32
    for _ in range(NEW - 1):
        token = engine.decode(token)
    assert engine.capacity == 64
    assert engine.tokens[:, : PROMPT.shape[1] + NEW].tolist() == expected


def test_longer_than_the_context_is_refused(model):
    with pytest.raises(ValueError, match="context of 512"):
        load("torch-fp16-graph", model).reserve(513)


@pytest.mark.parametrize("name", ["int8-graph", "int4-graph"])
def test_one_row_and_the_dequantized_product_agree(model, name):
    """The decode step's own products against the prompt's dequantized ones: the same greedy tokens."""
    engine = load(name, model)
    ids = engine.generate(PROMPT, NEW)
    scores = engine.score(ids[:, :-1], PROMPT.shape[1] - 1)
    assert ids[0, PROMPT.shape[1] :].tolist() == scores[0].argmax(-1).tolist()
    proof = engine.proof()
    assert proof["quantized_fraction"] == 1.0
    assert proof["cache"] and proof["launch"] == {"cuda_graph": False, "compiled": False}


@pytest.mark.parametrize("source", ["bnb-nf4", "bnb-int8-t0"])
def test_bitsandbytes_weights_give_its_own_scores(model, source):
    eager = hf.load(VARIANTS[source], model, model, "cpu", 1)
    expected = eager.score(PROMPT)
    engine = load(source + "-graph", model)
    # where a CPU has bfloat16 units (AMX), a library's product of one row may use them and that of many not: the two
    # differ by what bfloat16 costs this model, which torch tells, once in weights and once in activations
    exact, rounded = (hf.load(VARIANTS[name], model, model, "cpu", 1) for name in ("torch-fp32", "torch-bf16"))
    tolerance = 2 * (rounded.score(PROMPT).float() - exact.score(PROMPT)).abs().max().item()
    loss = (expected - exact.score(PROMPT)).abs().max().item()
    torch.testing.assert_close(engine.score(PROMPT), expected, atol=tolerance, rtol=0)
    assert source != "bnb-nf4" or tolerance < loss  # other weights than these would be seen
    ids = engine.generate(PROMPT, 8)
    step = engine.score(ids[:, :-1], PROMPT.shape[1] - 1)[0]
    chosen = step.gather(1, ids[0, PROMPT.shape[1] :, None])[:, 0]
    assert (step.amax(-1) - chosen).max() < 2 * tolerance  # a tie may fall the other way


def test_weights_that_a_cpu_would_lay_out_anew_are_read_as_stored(model, monkeypatch):
    """As on a CPU with AVX-512's bfloat16, where bitsandbytes repacks them at the first pass."""
    expected = load("bnb-nf4-graph", model).score(PROMPT)
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    assert torch.equal(load("bnb-nf4-graph", model).score(PROMPT), expected)


@pytest.mark.parametrize(("rows", "columns", "anew"), [(64, 128, True), (48, 128, False), (64, 96, False)])
def test_what_bitsandbytes_cannot_lay_out_anew_keeps_its_layout(monkeypatch, rows, columns, anew):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    layer = bitsandbytes.nn.Linear4bit(columns, rows, bias=False, quant_type="nf4").to("cpu")
    hf.keep_layout(layer, every=False)
    assert layer.support_avx512bf16_for_cpu is anew
    hf.keep_layout(layer, every=True)
    assert layer.support_avx512bf16_for_cpu is False


def test_proof_counts_each_storage_once(model):
    eager = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", 1).proof()
    proof = load("torch-fp16-graph", model).proof()
    assert proof["linear_weights"] == eager["linear_weights"]
    # GPT-2 in transformers also holds its causal masks, as booleans; rotary buffers are some bytes
    assert abs(proof["weight_bytes"]["float32"] - eager["weight_bytes"]["float32"]) < 4096


def test_int8_and_int4_are_the_nearest_values():
    weight = torch.randn(48, 128)
    int8 = linear.quantize_int8(linear.Dense(weight, None))
    error = (linear.dequantize(int8, torch.float32) - weight).abs()
    assert (error <= int8.scale[:, None] / 2 + 1e-6).all()
    int4 = linear.quantize_int4(linear.Dense(weight, None))
    assert int4.words.shape == (48, 16) and int4.scale.shape == (48, 2)
    back = linear.dequantize(int4, torch.float32)
    # a naive loop is the truth: column i·K/8 + j lies in bits 4i of word j
    for row, column in ((0, 0), (5, 17), (47, 127), (13, 64)):
        lane, word = divmod(column, 16)
        q = (int(int4.words[row, word]) >> (4 * lane)) & 15
        value = q * float(int4.scale[row, word // 8]) + float(int4.shift[row, word // 8])
        assert back[row, column] == pytest.approx(value)
        assert abs(value - float(weight[row, column])) <= float(int4.scale[row, word // 8]) * 0.52 + 2e-3


def test_int4_refuses_what_it_cannot_group():
    with pytest.raises(CellFailure, match="multiple of 64"):
        linear.quantize_int4(linear.Dense(torch.randn(4, 96), None))


def test_an_unknown_architecture_is_unsupported():
    class Network:
        class config:
            model_type = "bloom"

    with pytest.raises(CellFailure, match="bloom"):
        decoder.from_network(Network())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["torch-fp16-graph", "int8-graph", "int4-graph", "bnb-nf4-graph", "bnb-int8-t0-graph"])
def test_the_graph_replays_the_step(model, name):
    """On a card: the captured step gives the tokens that its own scores put first, ties aside."""
    engine = graph.load(VARIANTS[name], model, model, "cuda", 1)
    ids = engine.generate(PROMPT, NEW)
    assert engine.proof()["launch"]["cuda_graph"]
    scores = engine.score(ids[:, :-1].cpu(), PROMPT.shape[1] - 1)[0].float()
    chosen = scores.gather(1, ids[0, PROMPT.shape[1] :, None])[:, 0]
    assert (scores.amax(-1) - chosen).max() < 0.05
