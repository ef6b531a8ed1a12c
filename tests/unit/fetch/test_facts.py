"""Exact counts of the study's four architectures, and bytes per token."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from tests.architectures import MODELS, SMALL
from workflow.tradeoff.fetch import facts

LLAMA = {"model_type": "llama", "hidden_size": 2048, "num_attention_heads": 32}
# architecture; parameters; those that a decoded token reads; KV bytes per token in FP16; MB at 32, 16, 8, 4 bit
STUDY = {
    "distilgpt2": ({"model_type": "gpt2", "n_layer": 6}, 81_912_576, 81_126_144, 18_432, (328, 164, 82, 41)),
    "DialoGPT-small": ({"model_type": "gpt2", "n_layer": 12}, 124_439_808, 123_653_376, 36_864, (498, 249, 124, 62)),
    "TinyLlama": (
        LLAMA | {"num_hidden_layers": 22, "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32_000},
        1_100_048_384, 1_034_512_384, 22_528, (4400, 2200, 1100, 550),
    ),
    "Llama-3.2-1B": (
        LLAMA | {"num_hidden_layers": 16, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128_256,
                 "tie_word_embeddings": True, "head_dim": 64},
        1_235_814_400, 1_235_814_400, 32_768, (4943, 2472, 1236, 618),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDY)
def test_counts_are_those_of_the_study(name):
    architecture, parameters, read, kv, megabytes = STUDY[name]
    found = facts.of_config(AutoConfig.for_model(**architecture))
    assert found["parameters"] == parameters
    assert found["decode_parameters"] == read
    assert facts.kv_bytes_per_token(found) == kv
    assert tuple(round(facts.weight_bytes(found, bits) / 1e6) for bits in (32, 16, 8, 4)) == megabytes
    assert facts.decode_bytes(found, 8, cached_tokens=100) == read + 100 * kv


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_counts_are_those_of_the_weights(kind, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path, kind), dtype="float32")
    found = facts.of_config(model.config)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["tied"] == (kind != "llama-untied")
    assert found["context"] == tiny.CONTEXT
    assert found["vocab_size"] == tiny.VOCAB


CACHES = {  # numbers that two layers keep of a token, by hand
    "llama": 2 * 2 * 2 * 16, "GPT-BigCode": 2 * 2 * 16, "Falcon": 2 * 2 * 16, "GPT-NeoX": 2 * 2 * 4 * 16,
    "DeepSeek-V3": 2 * (16 + 8), "Qwen3-Next": 2 * 2 * 16, "Mixtral": 2 * 2 * 2 * 16,
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_the_cache_is_counted_by_what_it_keeps(name):
    """DeepSeek keeps a latent and one rotated key, Qwen3-Next's linear layers nothing that grows."""
    kind, settings = MODELS.get(name, ("llama", SMALL))
    assert facts.of_config(AutoConfig.for_model(kind, **settings))["kv_values_per_token"] == CACHES[name]


def test_what_a_token_does_not_read():
    found = facts.of_config(tiny.config("gpt2"))
    assert found["parameters"] - found["decode_parameters"] == tiny.CONTEXT * 64  # the position table
    assert found["embedding_parameters"] == (tiny.CONTEXT + tiny.VOCAB) * 64
    found = facts.of_config(tiny.config("llama-untied"))
    assert found["parameters"] - found["decode_parameters"] == tiny.VOCAB * 64  # the input embedding
    found = facts.of_config(tiny.config("llama"))
    assert found["parameters"] == found["decode_parameters"]
