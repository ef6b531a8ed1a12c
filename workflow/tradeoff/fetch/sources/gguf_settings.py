"""What a GGUF file states beside its weights: each setting gets into the model's config, or is refused by its name.

transformers' reader leaves out what it does not know and goes on with defaults, so nothing here relies on it: every key
is compared with the config that it made, set where it differs, and named where it cannot be.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError

ROPE_TENSOR = "rope_freqs.weight"  # what each rotary frequency is divided by
# keys that decide nothing, or whose mistake shows in the weights' shapes
NO_SETTING = {
    "embedding_length", "feed_forward_length", "block_count", "vocab_size", "tensor_data_layout",
    "rope.scaling.finetuned",
}  # fmt: skip
# key: what configs call it
SAME = {
    "context_length": ("max_position_embeddings",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "use_parallel_residual": ("use_parallel_residual",),
    "attention.clamp_kqv": ("clip_qkv",),
    "embedding_scale": ("embedding_multiplier",),
    "residual_scale": ("residual_multiplier",),
    "attention.scale": ("attention_multiplier",),
    "logit_scale": ("logit_scale",),
}
NEUTRAL = {"attention.causal": True, "residual_scale": 1.0, "embedding_scale": 1.0, "logit_scale": 1.0}
SCALING = re.compile(r"rope\.scal(ing\..+|e_linear)")
# of llama.cpp's YaRN: key, what transformers calls it, llama.cpp's own default, which is transformers' too
YARN = {"yarn_beta_fast": ("beta_fast", 32.0), "yarn_beta_slow": ("beta_slow", 1.0)}


def carry(pairs: Mapping, factors: np.ndarray | None, config, what: str) -> None:
    """Bring what the metadata ``pairs`` and rope ``factors`` (head size / 2,) state into ``config``.

    Raises UserError, with the key's name, for what the config has no place for.
    """
    kind = pairs["general.architecture"]
    stated = {key.removeprefix(f"{kind}."): value for key, value in pairs.items() if key.startswith(f"{kind}.")}

    def refuse(key: str, value=None):
        said = "" if value is None else f" = {str(value)[:40]}"
        raise UserError(f"{what} states {key}{said}, which its conversion would drop: give a source with safetensors")

    own = {**PLACES, **{key: same(names) for key, names in SAME.items()}}
    # the reader takes the rotary share of a head for all of it
    if hasattr(config, "head_dim") and (count := stated.get("attention.head_count")):
        config.head_dim = stated.get("attention.key_length") or config.hidden_size // count
    for key, value in stated.items():
        if key in NO_SETTING or SCALING.fullmatch(key) or value == NEUTRAL.get(key):
            continue
        if key in own and own[key](config, value):
            continue
        if key not in NEUTRAL and not isinstance(value, list) and value in (0, "", "none"):
            continue
        refuse(f"{kind}.{key}", value)
    # where a file is silent, llama.cpp's default holds and not that of transformers
    if "rope.freq_base" not in stated:
        rope_base(config, 10000.0)
    if kind == "llama" and "attention.sliding_window" not in stated and hasattr(config, "sliding_window"):
        config.sliding_window = None
    if getattr(config, "query_pre_attn_scalar", None) is not None:
        # no key says it: llama.cpp divides by the head's size but in the largest Gemmas, by the share of the width
        large = (kind, stated["block_count"]) in (("gemma2", 46), ("gemma3", 62))
        width = config.hidden_size // architecture.heads(config) if large else architecture.head_size(config)
        config.query_pre_attn_scalar = width
    scaling = rope_scaling(stated, factors, config, lambda key: refuse(f"{kind}.{key}"))
    if scaling is not None and not set_rope(config, scaling):
        refuse(ROPE_TENSOR if factors is not None else f"{kind}.rope.scaling.type")


def same(names: tuple[str, ...]) -> Callable:
    """A place under the first of ``names`` that a config has."""

    def place(config, value) -> bool:
        name = next((name for name in names if hasattr(config, name)), None)
        if name is None:
            return names == SAME["context_length"] and architecture.context(config) is None
        if not close(getattr(config, name), value):
            setattr(config, name, value)
        return True

    return place


def close(found, value) -> bool:
    """Whether a config has a file's value, which is a float32 where it is no integer."""
    if isinstance(found, int | float) and isinstance(value, int | float):
        return math.isclose(found, value, rel_tol=1e-6)
    return found == value


def heads(config, value) -> bool:
    return architecture.heads(config) == value


def kv_heads(config, value) -> bool:
    return architecture.kv_heads(config) == value


def head_size(config, value) -> bool:
    return architecture.head_size(config) == value


def rotary_size(config, value) -> bool:
    share = getattr(config, "partial_rotary_factor", None) or rope(config).get("partial_rotary_factor") or 1.0
    return int(architecture.head_size(config) * share) == value


def window(config, value) -> bool:
    """A window counts where some layer of the model slides; of others it must be the bound that it is without."""
    kinds = getattr(config, "layer_types", None)
    # in some families all layers slide when there is a window
    slides = config.model_type in ("mistral", "phi3", "starcoder2") if kinds is None else "sliding_attention" in kinds
    if slides and hasattr(config, "sliding_window"):
        config.sliding_window = value
    return slides or value >= architecture.longest(config)


def rope_base(config, value) -> bool:
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = rope(config) | {"rope_theta": value}
    elif hasattr(config, "rope_theta"):
        config.rope_theta = value
    else:
        return False
    return True


PLACES: dict[str, Callable] = {
    "attention.head_count": heads,
    "attention.head_count_kv": kv_heads,
    "attention.key_length": head_size,
    "attention.value_length": head_size,
    "attention.sliding_window": window,
    "rope.dimension_count": rotary_size,
    "rope.freq_base": rope_base,
}


def rope(config) -> dict:
    """A config's settings of rotary positions, where it keeps them together."""
    found = getattr(config, "rope_parameters", None)
    return dict(found) if isinstance(found, dict) else {}


def set_rope(config, scaling: dict) -> bool:
    """Put ``scaling`` into ``config``; False when it has no place for one."""
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = rope(config) | scaling
    elif hasattr(config, "rope_scaling"):
        config.rope_scaling = scaling
    else:
        return False
    return True


def rope_scaling(stated: Mapping, factors: np.ndarray | None, config, refuse: Callable) -> dict | None:
    """The scaling of rotary positions in transformers' words; None for none. ``refuse(key)`` raises."""
    known = {key.removeprefix("rope.scaling."): value for key, value in stated.items() if SCALING.fullmatch(key)}
    known.pop("finetuned", None)
    kind = known.pop("type", "none")
    factor = known.pop("factor", None)
    if (linear := known.pop("rope.scale_linear", None)) not in (None, 1.0):
        kind, factor = "linear", linear
    attention = known.pop("attn_factor", 1.0)
    if kind in ("none", "linear"):
        known.pop("original_context_length", None)  # it decides nothing here
        if attention != 1.0:
            refuse("rope.scaling.attn_factor")
    if factors is not None and not np.all(factors == 1):
        if kind != "none" or known:
            refuse(f"rope.scaling beside {ROPE_TENSOR}")
        return from_factors(factors.astype(np.float64), rope(config).get("rope_theta") or config.rope_theta)
    if kind == "linear" and factor not in (None, 0.0, 1.0):
        found = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn" and factor and "original_context_length" in known:
        found = {"rope_type": "yarn", "factor": factor}
        found["original_max_position_embeddings"] = known.pop("original_context_length")
        if attention != 1.0:  # llama.cpp multiplies it with what transformers has in its place
            found["attention_factor"] = attention * (1.0 + 0.1 * math.log(factor))
        for key, (name, default) in YARN.items():
            if (value := known.pop(key, default)) != default:
                found[name] = value
    elif kind in ("none", "linear"):
        found = None
    else:
        refuse(f"rope.scaling.type {kind}")
    if left := [key for key, value in known.items() if value not in (0, "", "none")]:
        refuse(f"rope.scaling.{left[0]}")
    return found


def from_factors(factors: np.ndarray, base: float) -> dict:
    """The scaling whose frequencies are the usual ones, each divided by its factor (head size / 2,).

    Llama 3's rule where some setting of it gives these factors; else the rule that has a factor for each, of which
    the one for short and the one for long sequences are the same, so that it holds for any length.
    """
    lengths = 2 * math.pi * base ** (np.arange(len(factors)) / len(factors))
    for power in range(4, 21):
        if np.allclose(llama3(lengths, factors.max(), 2.0**power), factors, rtol=1e-5, atol=0):
            return {
                "rope_type": "llama3",
                "factor": float(factors.max()),
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 2**power,
            }
    each = [float(factor) for factor in factors]
    return {"rope_type": "longrope", "short_factor": each, "long_factor": each, "attention_factor": 1.0}


def llama3(lengths: np.ndarray, factor: float, original: float) -> np.ndarray:
    """What Llama 3.1 and 3.2 divide the frequency of each wavelength ``lengths`` by, in tokens.

    ``factor`` for waves longer than the ``original`` context, 1 for those of less than a quarter of it, and a smooth
    way between; as in transformers' ``_compute_llama3_parameters``.
    """
    smooth = np.clip((original / lengths - 1.0) / 3.0, 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def unread(tensors: Iterable[str], kind: str, model) -> list[str]:
    """Names of ``tensors`` in a file of architecture ``kind`` that become no weight of ``model``."""
    import gguf

    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, architecture.layers(model.config))
    read = {ROPE_TENSOR}
    for own in model.state_dict():
        stem, _, suffix = own.rpartition(".")
        parts = stem.split(".")
        for start in range(len(parts)):
            if found := names.get_name(".".join(parts[start:])):
                read.add(f"{found}.{suffix}")
    return sorted(set(tensors) - read)
