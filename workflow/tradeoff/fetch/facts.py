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
    kv_values_per_token: numbers that the KV cache keeps for one token: 2 x layers x KV heads x head size.
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
        "kv_values_per_token": architecture.cache_values(config),
    }


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
