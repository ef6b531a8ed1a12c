"""What models call by different names, read from a transformers config in one place: context, layers, heads, cache.

A config is asked for its text part, which of most is the config itself and of multimodal ones a config inside it.
"""

# the longest sequence, by the families' names for it
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
UNBOUNDED = 1 << 30  # tokens, where a config gives no bound: positions are relative, as ALiBi's in BLOOM


def text(config):
    """The config of the part that reads and writes text."""
    return config.get_text_config()


def context(config) -> int | None:
    """The longest sequence that the model takes, in tokens; None when it states no bound."""
    for name in CONTEXT:
        found = getattr(text(config), name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def longest(config) -> int:
    """``context`` as a number in any case: UNBOUNDED when the model states none."""
    return context(config) or UNBOUNDED


def vocabulary(config) -> int:
    """Number of token ids that the model gives a logit for."""
    return text(config).vocab_size


def layers(config) -> int:
    return text(config).num_hidden_layers


def heads(config) -> int:
    return text(config).num_attention_heads


def kv_heads(config) -> int:
    """Heads of keys and values in a layer: fewer than of queries where several share them."""
    part = text(config)
    # Falcon's and GPT-BigCode's word for a single one; a Falcon of the newer kind says how many
    if getattr(part, "multi_query", False) and not getattr(part, "new_decoder_architecture", False):
        return 1
    for name in ("num_key_value_heads", "num_kv_heads"):
        if found := getattr(part, name, None):
            return found
    return heads(config)


def head_size(config) -> int:
    """Numbers of one head's key, or value, of a token."""
    part = text(config)
    return getattr(part, "head_dim", None) or part.hidden_size // heads(config)


def cache_values(config) -> int:
    """Numbers that a cache keeps for one token: 2 × layers × heads of keys and values × head size."""
    return 2 * layers(config) * kv_heads(config) * head_size(config)
