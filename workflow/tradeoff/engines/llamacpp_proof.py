"""What a GGUF file holds, read independently of llama.cpp by the ``gguf`` package: weights and bytes by ggml type."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from workflow.tradeoff.gguf_reader import Reader

# tables of which a token reads one row
TABLES = ("token_embd.weight", "position_embd.weight", "token_types.weight")
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
FLOAT_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


def nominal_bits(name: str) -> int:
    """The bits that a ggml type is named after: Q4_K 4, Q5_1 5, IQ4_NL 4, MXFP4 4, F16 16."""
    return FLOAT_BITS.get(name) or int(re.search(r"\d", name)[0])


def widest(bits: int) -> int:
    """The most nominal bits of a type that counts as one of a ``bits``-bit file.

    llama.cpp's mixes keep some matrices wider on purpose (a Q4_K_M file has Q6_K ones) and take a wider type where a
    row is no multiple of 256. What is wider than 6 bits is no mix of a 4- to 6-bit file any more but an 8-bit one.
    """
    return bits if bits >= 8 else 6


def file_proof(file: Path, bits: int | None) -> dict:
    """See ``Engine.proof``; beside it ``weights_by_type``, ``linear_by_type``, ``bits_per_weight``.

    bits: the variant's; None takes any quantized type (a file as it came). ``cache_values``: numbers that the cache
    keeps for a token. ``bits_per_weight`` is the mean over the matrices that a token's step multiplies by, scales
    included; ``counted`` says in words what ``quantized_fraction`` counts.
    """
    reader = Reader(file)
    names = {tensor.name for tensor in reader.tensors}
    tied = HEAD not in names
    stored: Counter = Counter()
    count: Counter = Counter()
    linear: Counter = Counter()
    unread = linear_bytes = 0
    for tensor in reader.tensors:
        kind, size = tensor.tensor_type.name, int(tensor.n_elements)
        stored[kind] += int(tensor.n_bytes)
        count[kind] += size
        if tensor.name in TABLES and not (tied and tensor.name == EMBEDDING):
            unread += int(tensor.n_bytes)
        elif len(tensor.shape) > 1:
            linear[kind] += size
            linear_bytes += int(tensor.n_bytes)
    total = sum(linear.values())
    limit = 8 if bits is None else widest(bits)
    quantized = sum(size for kind, size in linear.items() if accepted(kind, bits, limit))
    pairs = {key: field.contents() for key, field in reader.fields.items() if "tokenizer" not in key}
    return {
        "weight_bytes": dict(stored),
        "weights_by_type": dict(count),
        "linear_by_type": dict(linear),
        "bits_per_weight": 8 * linear_bytes / total,
        "counted": counted(bits, limit, 8 * linear_bytes / total),
        "unread_bytes": unread,
        "linear_weights": total,
        "linear_quantized": quantized,
        "quantized_fraction": quantized / total,
        "cache_values": cache_values(pairs),
    }


def counted(bits: int | None, limit: int, mean: float) -> str:
    if bits in (16, 32):
        return f"{bits}-bit"
    return f"of types of at most {limit} bits (llama.cpp's mix comes to {mean:.1f} bits a weight)"


def accepted(kind: str, bits: int | None, limit: int) -> bool:
    """Whether a matrix of type ``kind`` is one of the variant: of 16 and 32 bits exactly so, else at most ``limit``."""
    return nominal_bits(kind) == bits if bits in (16, 32) else nominal_bits(kind) <= limit


def cache_values(pairs: Mapping) -> int:
    """Numbers that the cache keeps for a token, by a file's metadata: layers × heads × (key + value width)."""
    kind = pairs["general.architecture"]
    layers, heads = pairs[f"{kind}.block_count"], pairs[f"{kind}.attention.head_count"]
    held = pairs.get(f"{kind}.attention.head_count_kv", heads)
    each = list(held) if isinstance(held, list) else [held] * layers
    wide = pairs[f"{kind}.embedding_length"] // (max(heads) if isinstance(heads, list) else heads)
    key = pairs.get(f"{kind}.attention.key_length", wide)
    return sum(each) * (key + pairs.get(f"{kind}.attention.value_length", wide))
