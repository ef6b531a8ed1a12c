"""The attention that a model runs with: its own default, unless that leaves out what the model asks for.

transformers hands every attention function all that a model states (a soft cap of the scores, sinks, a scale of its
own); one that does not know a word passes it over in silence. Each layer's function is compared here with the eager
one of its model, on made-up queries and keys, small and large, since a cap only shows on large scores.
"""

import inspect
import sys

import torch
from torch import nn

PROBE = 2  # tokens that are run to see what layers hand over
LENGTH = 6  # queries and keys of the comparison
SCALES = (1.0, 8.0, 64.0)
TOLERANCE = 1e-3  # of outputs around one: float32 sums in another order differ by some 1e-6


def settle(network: nn.Module) -> str:
    """Give the network eager attention where its own leaves something out; what it would leave out, or ""."""
    missing = left_out(network)
    if missing:
        network.set_attn_implementation("eager")
    return missing


@torch.inference_mode()
def left_out(network: nn.Module) -> str:
    """What the attention in use leaves out of what the model states, in words; "" when nothing."""
    try:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as known
    except ImportError:  # a transformers without the registry: each model has its own attention
        return ""
    kind = network.config._attn_implementation
    used = known.get(kind)
    if kind == "eager" or used is None:
        return ""
    found: dict[str, None] = {}

    def spy(module, query, key, value, attention_mask, *args, **stated):
        if not args:  # all models hand over what they state by name
            found.update(dict.fromkeys(_differences(used, module, (query, key, value), stated)))
        return used(module, query, key, value, attention_mask, *args, **stated)

    known[kind] = spy
    try:
        network(torch.ones(1, PROBE, dtype=torch.int64, device=network.device), use_cache=False)
    finally:
        del known[kind]  # the registry's own is below it
    return ", ".join(found)


def _differences(used, module, given, stated: dict) -> list[str]:
    """What ``used`` leaves out in one layer; given: its query, key and value, of which the shapes count."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        return []
    stated = {name: _single(value) for name, value in stated.items() if name != "is_causal"}
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, part.shape[1], LENGTH, part.shape[-1], generator=generator).to(part.device) for part in given
    )
    mask = torch.full((LENGTH, LENGTH), torch.finfo(torch.float32).min, device=query.device).triu(1)[None, None]
    for scale in SCALES:
        arguments = (module, scale * query, key, value, mask)
        if (used(*arguments, **stated)[0] - eager(*arguments, **stated)[0]).abs().max() > TOLERANCE:
            unknown = inspect.signature(eager).parameters.keys() - inspect.signature(used).parameters.keys()
            names = [name for name in stated if name in unknown and stated[name] is not None]
            return names or ["a scale of its scores"]
    return []


def _single(value):
    """Floating-point tensors in float32, as the made-up queries are."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
