"""A model's safetensors as a GGUF file: llama.cpp's names, order and metadata, the matrices quantized on the way.

llama.cpp's converter is a script of its repository, and the package of it on PyPI brings its own copy of ``gguf``, over
the one that transformers reads GGUF files with. So four families are written here (ARCHITECTURES); ``check`` holds the
first blocks of each file, in float32, against torch's logits, and refuses what differs.
"""

import concurrent.futures
import ctypes
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file
from transformers import AutoConfig

from workflow.tradeoff.engines import llamacpp_library as library
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import gguf_mix, gguf_vocabulary

# transformers' model_type: llama.cpp's architecture
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NO_WEIGHTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
CHUNK = 1 << 20  # weights that one thread quantizes at once


def write(
    model: Path,
    target: Path,
    mix: str,
    *,
    threads: int,
    config=None,
    importance: Mapping[str, np.ndarray] | None = None,
    vocabulary: bool = True,
) -> dict:
    """Write ``model`` (a folder of transformers) as ``target`` in ``mix``; what a manifest should say of it.

    config: in place of the model's own, to write its first blocks alone. importance: mean squared input of each
    column of a matrix, by GGUF name. Raises CellFailure for an architecture that is not written here.
    """
    config = config or read_config(model)
    arch = architecture(config, model.name)
    state = weights(model)
    names = {name: key for key in state if (name := gguf_name(key, arch, config))}
    extra = rope_factors(config) if arch != "gpt2" else {}
    rows = {name: tuple(state[key].shape) for name, key in names.items()}
    rows = {name: shape[::-1] if _turned(names[name], arch) else shape for name, shape in rows.items()}
    types = gguf_mix.assign(
        rows | {name: tensor.shape for name, tensor in extra.items()},
        mix,
        layers=config.num_hidden_layers,
        importance=importance is not None,
        seventy=arch == "llama" and config.num_hidden_layers == 80,
    )
    writer = GGUFWriter(target, arch)
    writer.add_file_type(gguf_mix.FILE_TYPES[mix])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    metadata(writer, config, arch)
    said = {"vocabulary": None, "why": "not asked for"}
    if vocabulary:
        said = gguf_vocabulary.add(writer, model, config.vocab_size, target.parent)
    else:
        gguf_vocabulary.without(writer)
    for name, kind in types.items():
        shape = rows[name] if name in rows else tuple(extra[name].shape)
        size = stored_bytes(kind, shape)
        writer.add_tensor_info(
            name, (*shape[:-1], size // int(np.prod(shape[:-1], dtype=int))), np.dtype(np.uint8), size,
            raw_dtype=GGMLQuantizationType[kind],
        )  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for name, kind in types.items():
            tensor = extra[name] if name in extra else matrix(state[names[name]], names[name], arch, config)
            writer.write_tensor_data(stored(tensor, kind, pool, (importance or {}).get(name)))
    writer.close()
    return said


def architecture(config, what: str) -> str:
    arch = ARCHITECTURES.get(config.model_type)
    if arch is None:
        raise CellFailure(
            "unsupported",
            f"{what} is a {config.model_type}, and GGUF files are made here of {', '.join(ARCHITECTURES)} alone; "
            "gguf-source runs a .gguf file of any architecture that llama.cpp knows",
        )
    windowed = getattr(config, "use_sliding_window", config.model_type == "mistral")
    if windowed and (getattr(config, "sliding_window", None) or config.max_position_embeddings) < (
        config.max_position_embeddings
    ):
        raise CellFailure("unsupported", f"{what} attends to a sliding window, which is not written to GGUF here")
    return arch


def read_config(model: Path):
    return AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)


def weights(model: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder by name, mapped from the disk."""
    return {key: tensor for path in sorted(model.glob("*.safetensors")) for key, tensor in load_file(path).items()}


@functools.cache
def _names(arch: str, layers: int):
    return gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), layers)


def gguf_name(key: str, arch: str, config) -> str | None:
    """llama.cpp's name of a tensor; None for what is no weight, a tied head, and blocks beyond the config's."""
    if key.endswith(NO_WEIGHTS) or (key.startswith("lm_head") and config.tie_word_embeddings):
        return None
    table = _names(arch, config.num_hidden_layers)
    for name in (key, f"transformer.{key}"):
        if found := table.get_name(name, try_suffixes=(".weight", ".bias")):
            return found
    if any(part.isdigit() and int(part) >= config.num_hidden_layers for part in key.split(".")):
        return None
    raise CellFailure("unsupported", f"GGUF has no name for the tensor {key} of a {config.model_type}")


def _turned(key: str, arch: str) -> bool:
    """Whether a weight is stored as (input, output): GPT-2's Conv1D."""
    return arch == "gpt2" and key.endswith(".weight") and any(part in key for part in (".c_attn", ".c_proj", ".c_fc"))


def matrix(tensor: torch.Tensor, key: str, arch: str, config) -> torch.Tensor:
    """A weight in float32 as llama.cpp wants it: rows are outputs, and a Llama's rotated pairs lie side by side."""
    tensor = tensor.float()
    if _turned(key, arch):
        return tensor.T
    if arch == "llama" and any(part in key for part in (".q_proj.", ".k_proj.")):
        held = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        heads = config.num_attention_heads if ".q_proj." in key else held
        shape = tensor.shape
        return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    return tensor


def stored_bytes(kind: str, shape: tuple[int, ...]) -> int:
    block, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def stored(tensor: torch.Tensor, kind: str, pool, importance: np.ndarray | None) -> np.ndarray:
    """The bytes of a float32 tensor in a ggml type, uint8: ggml's own quantizer over chunks of rows."""
    tensor = tensor.contiguous()
    if kind in FLOATS:
        return tensor.to(FLOATS[kind]).view(torch.uint8).numpy().reshape(-1)
    lib, number = library.open_library(), GGMLQuantizationType[kind].value
    count, length = tensor.shape
    width = stored_bytes(kind, (length,))
    result = np.empty(count * width, np.uint8)
    weight = None if importance is None else np.ascontiguousarray(importance, np.float32)
    step = max(1, CHUNK // length)

    def part(first: int) -> None:
        lib.ggml_quantize_chunk(
            number, tensor.data_ptr() + 4 * first * length, result.ctypes.data + first * width, 0,
            min(step, count - first), length, None if weight is None else weight.ctypes.data_as(ctypes.c_void_p),
        )  # fmt: skip

    list(pool.map(part, range(0, count, step)))
    return result


def metadata(writer: GGUFWriter, config, arch: str) -> None:
    """What llama.cpp must know beside the weights."""
    heads, width = config.num_attention_heads, config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if arch == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or width // heads
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    theta, scaling = rotation(config)
    writer.add_rope_freq_base(theta)
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def rotation(config) -> tuple[float, dict]:
    """Base and scaling of the rotary embedding, of configs of transformers 4 and 5."""
    held = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    scaling = dict(held) | {"rope_type": held.get("rope_type") or held.get("type") or "default"}
    return float(scaling.get("rope_theta") or getattr(config, "rope_theta", 10000.0)), scaling


def rope_factors(config) -> dict[str, torch.Tensor]:
    """Llama 3's stretched frequencies as llama.cpp takes them: what each plain one is divided by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theta, scaling = rotation(config)
    if scaling["rope_type"] in ("default", "linear"):
        return {}
    if scaling["rope_type"] != "llama3":
        raise CellFailure(
            "unsupported", f"rotary embeddings of the type {scaling['rope_type']!r} are not written to GGUF here"
        )
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / theta ** (torch.arange(0, 2 * len(stretched), 2).float() / (2 * len(stretched)))
    return {"rope_freqs.weight": plain / stretched}


def blocks(config, count: int):
    """The config of the model's first ``count`` blocks."""
    short = type(config).from_dict(config.to_dict())
    short.num_hidden_layers = min(count, config.num_hidden_layers)
    if getattr(short, "layer_types", None):
        short.layer_types = short.layer_types[: short.num_hidden_layers]
    return short


def linear_names(network, arch: str, config) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every linear layer of a torch model with the GGUF name of its weight; the head under that of its matrix."""
    from transformers.pytorch_utils import Conv1D

    for key, module in network.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            if module is network.get_output_embeddings():
                yield ("token_embd.weight" if config.tie_word_embeddings else "output.weight"), module
            elif name := gguf_name(f"{key}.weight", arch, config):
                yield name, module
