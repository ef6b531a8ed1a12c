"""What is true of a checkpoint whatever runs it: exact parameter counts, context, and bytes per token."""

from collections.abc import Mapping

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError


def of_config(config) -> dict:
    """The facts of a transformers config, counted on the meta device: no weights are read or made.

    parameters: unique ones, so a tied head counts once.
    embedding_parameters: those of all lookup tables, tokens and positions.
    decode_parameters: those that one decoded token must read. A table that is not also the head gives one row per
    token, so the position table and an untied input embedding are left out.
    context: the longest sequence, None where the config states no bound.
    kv_values_per_token: numbers that the KV cache grows by with a token.
    Raises UserError when the config fits no model of its type.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a library refuses a config in whatever way it likes
        reason = str(error).partition("\n")[0]
        raise UserError(f"transformers builds no {config.model_type} from its config ({reason}): correct it") from error
    head = model.get_output_embeddings()
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    looked_up = sum(weight.numel() for key, weight in tables.items() if head is None or key != id(head.weight))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "architecture": config.model_type,
        "parameters": parameters,
        "embedding_parameters": sum(weight.numel() for weight in tables.values()),
        "decode_parameters": parameters - looked_up,
        "tied": head is not None and head.weight is model.get_input_embeddings().weight,
        "context": architecture.context(config),
        "vocab_size": architecture.vocabulary(config),
        "layers": architecture.layers(config),
        "kv_values_per_token": cache_growth(model),
    }


def cache_growth(model) -> int:
    """Numbers that the cache of ``model``, on the meta device, grows by with a token: seen, since names differ.

    2 × layers × heads × head size by the config's names where a model cannot run there.
    """
    import torch
    from transformers import DynamicCache

    model = model.bfloat16()  # of experts, torch plans the product of this type alone there
    cache, sizes = DynamicCache(config=model.config), []
    try:
        with torch.no_grad():
            for _ in range(2):
                model(torch.ones(1, 1, dtype=torch.int64, device="meta"), cache=cache, use_cache=True)
                held = [part for layer in cache.layers for part in vars(layer).values()]
                sizes.append(sum(part.numel() for part in held if isinstance(part, torch.Tensor)))
    except Exception:  # a library refuses numbers that are not there in whatever way it likes
        return architecture.cache_values(model.config)
    return sizes[1] - sizes[0]


def weight_bytes(facts: Mapping, bits: float) -> float:
    """Bytes of all weights at ``bits`` bits each: what the study's table of bytes per token holds."""
    return facts["parameters"] * bits / 8


def decode_bytes(facts: Mapping, bits: float, *, cached_tokens: int = 0, kv_bits: float = 16) -> float:
    """Bytes that one decoded token must read: weights once at ``bits`` bits, and the KV cache of ``cached_tokens``.

    The numerator of model bandwidth utilization (MBU), in bytes; gpt-fast counts the same way.
    """
    return facts["decode_parameters"] * bits / 8 + cached_tokens * kv_bytes_per_token(facts, kv_bits)


def kv_bytes_per_token(facts: Mapping, bits: float = 16) -> float:
    """Bytes that the KV cache grows by with each token, at ``bits`` bits a number."""
    return facts["kv_values_per_token"] * bits / 8
