"""vLLM's engine against eager transformers, over a stand-in that answers in vLLM's forms; and what it counts."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import fake_vllm, tiny
from workflow.tradeoff.engines import vllm
from workflow.tradeoff.engines.vllm_proof import cache_of, model_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import VARIANTS, build

IDS = torch.tensor([[7, 30, 200, 4, 99, 12], [1, 2, 3, 4, 5, 6]])
KV8 = build("vllm-kv8", {"engine": "vllm", "recipe": {"quantizer": "none", "dtype": "float16"},
                         "options": {"cache_type": "fp8"}})  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture
def library():
    yield fake_vllm.module()
    for name in ("vllm", "vllm.sampling_params"):
        sys.modules.pop(name)


@pytest.fixture
def engine(folder, library):
    return vllm.VllmEngine(library, VARIANTS["vllm-fp16"], folder, "cpu")


@pytest.fixture(scope="module")
def network(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def greedy(network, ids, tokens):
    for _ in range(tokens):
        with torch.no_grad():
            ids = torch.cat([ids, network(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


@pytest.mark.parametrize("first", [0, 3, 5])
def test_scores_are_eagers_log_probabilities_in_the_vocabularys_order(engine, network, first):
    with torch.no_grad():
        expected = network(IDS).logits.log_softmax(-1)[:, first:]
    scores = engine.score(IDS, first)
    assert scores.shape == expected.shape and scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_one_token_and_a_full_context_are_scored(engine):
    assert engine.score(IDS[:1, :1]).shape == (1, 1, tiny.VOCAB)
    full = torch.ones(1, engine.context, dtype=torch.int64)
    assert torch.isfinite(engine.score(full, engine.context - 2)).all()


def test_a_batch_decodes_step_by_step_as_each_row_does_alone(engine, network):
    token = engine.prefill(IDS)
    found = [token]
    for _ in range(4):
        token = engine.decode(token)
        assert token.shape == (2, 1)
        found.append(token)
    torch.testing.assert_close(torch.cat([IDS, *found], 1), greedy(network, IDS, 5))


def test_a_score_in_between_leaves_the_sequence_as_it_was(engine, network):
    token = engine.prefill(IDS[:1])
    second = engine.decode(token)
    engine.score(IDS)
    third = engine.decode(second)
    torch.testing.assert_close(torch.cat([IDS[:1], token, second, third], 1), greedy(network, IDS[:1], 3))


def test_a_new_prompt_takes_the_place_of_the_last_one(engine):
    engine.prefill(IDS)
    engine.prefill(IDS[:1])
    assert len(engine.engine.engine_core.requests) == 1


def test_generate_goes_to_the_end_whatever_the_tokens_say(engine, network):
    engine.prefill(IDS)
    torch.testing.assert_close(engine.generate(IDS[:1], 5), greedy(network, IDS[:1], 5))
    assert not engine.engine.engine_core.requests


def test_another_token_than_its_own_is_refused(engine):
    token = engine.prefill(IDS[:1])
    with pytest.raises(ValueError, match="no others"):
        engine.decode(token + 1)


def test_a_sequence_ends_with_the_context(engine):
    token = engine.prefill(torch.ones(1, engine.context - 1, dtype=torch.int64))
    token = engine.decode(token)
    with pytest.raises(ValueError, match=f"do not fit the context of {engine.context}"):
        engine.decode(token)


@pytest.mark.parametrize(
    ("options", "shape", "named"),
    [
        ({"length": 16}, (1, 17), "1 x 18 tokens: the variant lets vLLM make room for 16 (options.length)"),
        ({"sequences": 1}, (2, 4), "room for 1 (options.sequences)"),
        ({"length": 16, "cache_tokens": 16}, (2, 9), "room for 16 (options.cache_tokens)"),
    ],
)
def test_what_does_not_fit_names_the_option(folder, library, options, shape, named):
    variant = build("own", {"engine": "vllm", "recipe": {"quantizer": "none", "dtype": "float16"}, "options": options})
    engine = vllm.VllmEngine(library, variant, folder, "cpu")
    with pytest.raises(CellFailure) as failure:
        engine.prefill(torch.ones(*shape, dtype=torch.int64))
    assert failure.value.status == "unsupported" and failure.value.reason.endswith(named)


def test_an_incomplete_answer_is_no_score(engine, monkeypatch):
    short = (torch.zeros(5, 9), torch.zeros(5, 9))
    monkeypatch.setattr(fake_vllm, "ranked", lambda logp, ahead: short)
    with pytest.raises(CellFailure, match="where \\(5, 321\\) were asked for"):
        engine.score(IDS[:1])


def test_a_step_that_leaves_a_sequence_out_is_an_error(engine):
    token = engine.prefill(IDS)
    engine.engine.engine_core.requests.popitem()
    with pytest.raises(CellFailure, match="gave 1 of 2 sequences one token"):
        engine.decode(token)


def test_what_vllm_is_told(engine, folder):
    told = vars(engine.engine.args)
    assert told["model"] == str(folder) and told["dtype"] == "float16" and told["quantization"] is None
    assert told["enable_prefix_caching"] is told["async_scheduling"] is False
    # room for all sequences, the unfilled ends of their last blocks, and the token after a full context
    assert told["num_gpu_blocks_override"] * vllm.BLOCK >= 16384 + 64 * vllm.BLOCK
    assert told["max_model_len"] == engine.context + 1 == tiny.CONTEXT + 1
    fp8 = vllm.VllmEngine(engine.library, VARIANTS["vllm-fp8"], folder, "cpu")
    assert fp8.arguments(folder)["quantization"] == "fp8"


def test_keys_and_values_are_kept_as_the_variant_says(engine, folder):
    assert vars(engine.engine.args)["kv_cache_dtype"] == "auto" and engine.proof()["cache_type"] == "float16"
    kept = vllm.VllmEngine(engine.library, KV8, folder, "cpu")
    assert kept.arguments(folder)["kv_cache_dtype"] == kept.proof()["cache_type"] == "fp8"


def test_an_fp8_cache_of_float16_is_unsupported_where_the_attention_has_none(folder, library, monkeypatch):
    def refuse(args):
        raise RuntimeError("For FP16/BF16 input, output must have the same dtype as inputs. " + vllm.FP8_OUTPUT)

    monkeypatch.setattr(fake_vllm.LLMEngine, "from_engine_args", refuse)
    with pytest.raises(CellFailure, match=r"unsupported: vLLM does not run this: .* dtype: bfloat16"):
        vllm.VllmEngine(library, KV8, folder, "cpu")


def test_an_architecture_that_vllm_lacks_is_unsupported(folder, library, monkeypatch):
    def refuse(args):
        raise ValueError("Model architectures ['Odd'] are not supported for now.\nSupported: many")

    monkeypatch.setattr(fake_vllm.LLMEngine, "from_engine_args", refuse)
    with pytest.raises(CellFailure, match="unsupported: vLLM does not run this: Model architectures \\['Odd'\\]"):
        vllm.VllmEngine(library, VARIANTS["vllm-fp16"], folder, "cpu")


def test_without_the_package_or_the_card_it_is_unsupported(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(CellFailure, match="unsupported: the package vllm is not installed"):
        vllm.imported(VARIANTS["vllm-fp16"])
    with pytest.raises(CellFailure, match=r"capability 8\.9, and Tesla T4 has 7\.5"):
        vllm.check_card(VARIANTS["vllm-fp8"], (7, 5), "Tesla T4")
    with pytest.raises(CellFailure, match=r"capability 8\.9, and Tesla T4 has 7\.5"):
        vllm.check_card(KV8, (7, 5), "Tesla T4")
    vllm.check_card(VARIANTS["vllm-fp16"], (7, 5), "Tesla T4")
    vllm.check_card(VARIANTS["vllm-fp8"], (9, 0), "NVIDIA H100")


def test_packed_files_run_without_the_kernel_that_does_not_end(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", library)
    monkeypatch.delenv("VLLM_DISABLED_KERNELS", raising=False)
    for name in vllm.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that what is set here ends with this test
    vllm.imported(VARIANTS["vllm-fp16"])
    assert "VLLM_DISABLED_KERNELS" not in os.environ
    vllm.imported(VARIANTS["vllm-w4a16"])
    assert os.environ.pop("VLLM_DISABLED_KERNELS") == "HummingLinearKernel"


def test_the_proof_says_what_ran(engine):
    proof = engine.proof()
    assert proof["attention"] == "FLASH_ATTN" and proof["cache"] is True
    assert proof["launch"]["cuda_graph"] and proof["launch"]["compiled"]
    assert proof["engine"]["vllm"] == "0.23.0"
    blocks = engine.engine.args.num_gpu_blocks_override
    assert proof["engine"]["cache_reserved_bytes"] == 2 * 1000 * blocks
    assert "CUDA graphs (full_and_piecewise), compiled, without the asynchronous" in proof["remarks"][0]
    assert f"reserves {2 * blocks / 1000:,.0f} MB" in proof["remarks"][1]
    assert engine.cache_bytes(17) == 2 * 2 * 1000  # two layers, two blocks


@pytest.mark.parametrize("tied", [True, False])
def test_float_weights_are_counted_once_and_without_the_padding(tied):
    proof = model_proof(fake_vllm.Network(tied=tied), VARIANTS["vllm-fp16"])
    table, layers, norm = 16 * 8 * 2, 2 * 8 * 8 * 2, 8 * 2
    assert proof["weight_bytes"] == {"float16": layers + norm + table * (1 if tied else 2)}
    assert proof["linear_weights"] == proof["linear_quantized"] == 2 * 8 * 8 + 10 * 8
    # of a table that is no head a token reads one row
    assert proof["unread_bytes"] == (0 if tied else table - 8 * 2)
    assert proof["parameters"] == {"float16@cpu": sum(proof["weight_bytes"].values()) // 2}


def test_fp8_layers_are_quantized_and_the_head_is_named():
    proof = model_proof(fake_vllm.Network(torch.float8_e4m3fn, scales=8), VARIANTS["vllm-fp8"])
    assert proof["weight_bytes"]["float8_e4m3fn"] == 2 * 8 * 8 and proof["weight_bytes"]["float32"] == 2 * 8 * 4
    assert proof["weights_by_bits"] == {"8": 128, "16": 80}
    assert proof["quantized_fraction"] == 128 / 208 and proof["left_unquantized"] == {"lm_head": 80}


def test_a_published_checkpoints_packed_integers_count_by_the_layers_sizes():
    network = fake_vllm.Network()
    for layer in network.layers:
        del layer.weight
        layer.qweight = torch.nn.Parameter(torch.zeros(1, 8, dtype=torch.int32), requires_grad=False)
        layer.scales = torch.nn.Parameter(torch.zeros(1, 8, dtype=torch.float16), requires_grad=False)
    given = {"engine": "vllm", "checkpoint": {"source": "hub", "repo": "a/b", "revision": "0"}}
    proof = model_proof(network, build("own", given))
    assert proof["weights_by_bits"] == {"4": 128, "16": 80} and proof["linear_quantized"] == 128


def pack(layer, bits):
    """Make a stand-in's layer what vLLM keeps of AutoRound's: words of 32 bits, float16 scales, a kernel."""
    del layer.weight
    layer.qweight = torch.nn.Parameter(torch.zeros(8 * bits // 32, 8, dtype=torch.int32), requires_grad=False)
    layer.scales = torch.nn.Parameter(torch.ones(1, 8, dtype=torch.float16), requires_grad=False)
    layer.quant_method = SimpleNamespace(kernel=type("MarlinLinearKernel", (), {})())


@pytest.mark.parametrize(
    ("recipe", "bits", "quantized"),
    [({"bits": 4}, (4, 4), 128), ({"bits": 4}, (4, 8), 64), ({"bits": 4, "average_bits": 6.5}, (4, 8), 128)],
)
def test_autorounds_matrices_count_by_the_bits_that_the_recipe_gives_them(recipe, bits, quantized):
    network = fake_vllm.Network()
    for layer, width in zip(network.layers, bits, strict=True):
        pack(layer, width)
    proof = model_proof(network, build("own", {"engine": "vllm", "recipe": {"quantizer": "auto-round", **recipe}}))
    assert proof["linear_quantized"] == quantized and proof["linear_weights"] == 208
    assert proof["weight_bytes"]["int32"] == sum(8 * 8 * width // 8 for width in bits)
    assert proof["kernels"] == ["MarlinLinearKernel"]


def test_a_group_of_layers_of_several_sizes_says_their_bytes_at_once():
    spec = SimpleNamespace(block_size=16, page_size_bytes=500, kv_cache_specs={})
    config = SimpleNamespace(kv_cache_groups=[SimpleNamespace(layer_names=["a", "b"], kv_cache_spec=spec)])
    assert cache_of(config, 16) == 500
