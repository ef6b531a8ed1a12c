"""What families of models call differently, read from their own configs."""

import pytest
from transformers import AutoConfig

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate import conventions
from workflow.tradeoff.run import config as study_config

# settings; context; heads of keys and values; numbers of the cache per token and layer
FAMILIES = {
    "gpt2": ({"n_embd": 64, "n_head": 4, "n_positions": 48}, 48, 4, 128),
    "llama": ({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}, 2048, 2, 64),
    "gemma2": (
        {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}, 8192, 2, 128,
    ),
    "bloom": ({"hidden_size": 64, "n_head": 4}, None, 4, 128),
    "mpt": ({"d_model": 64, "n_heads": 4, "max_seq_len": 512}, 512, 4, 128),
    "falcon": ({"hidden_size": 64, "num_attention_heads": 4, "multi_query": True}, 2048, 1, 32),
    "gpt_bigcode": ({"n_embd": 64, "n_head": 4, "multi_query": True}, 1024, 1, 32),
    "gpt_neo": ({"hidden_size": 64, "num_heads": 4}, 2048, 4, 128),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_families(kind):
    settings, context, kv_heads, values = FAMILIES[kind]
    config = AutoConfig.for_model(kind, **settings)
    assert architecture.context(config) == context
    assert architecture.longest(config) == (context or architecture.UNBOUNDED)
    assert architecture.kv_heads(config) == kv_heads
    assert architecture.cache_values(config) == values * architecture.layers(config)


def test_newer_falcons_say_how_many_heads():
    config = AutoConfig.for_model("falcon", num_attention_heads=8, num_kv_heads=2, new_decoder_architecture=True)
    assert architecture.kv_heads(config) == 2


def test_a_config_within_a_config():
    config = AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 96, "vocab_size": 320})
    assert architecture.context(config) == 96
    assert architecture.vocabulary(config) == 320


def test_the_whole_context_of_a_model_without_bound_is_refused():
    vocab = conventions.Vocabulary(lambda text: list(text.encode()), None, 256)
    with pytest.raises(UserError, match="states no bound: name a window, as in word-2048"):
        conventions.plan("word", ["a b c"], [0], vocab, architecture.UNBOUNDED)
    assert conventions.plan("word-4", ["a b c"], [0], vocab, architecture.UNBOUNDED).windows


@pytest.mark.parametrize("name", ["n_positions", "max_position_embeddings", "max_seq_len"])
def test_a_config_s_architecture_is_too_short_by_any_name(name):
    model = {"source": "random", "architecture": {"model_type": "gpt2", name: 24}, "seed": 0}
    study = {"models": {"m": model}, "corpus": {"source": "local", "path": "a", "sha256": "0", "format": "wikitext"}}
    study |= {
        "evaluate": {"conventions": ["study"]},
        "decide": {"scenarios": {}},
        "define": {},
        "variants": ["torch-fp32"],
    }
    study |= {"baseline": "torch-fp32", "measure": {"prompt_tokens": 20, "new_tokens": 8}}
    with pytest.raises(UserError, match="28, more than the 24 tokens"):
        study_config.check_meaning(study)
