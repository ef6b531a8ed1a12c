"""Which ggml type each matrix of a GGUF file gets: llama.cpp's mixes, as its ``llama-quantize`` chooses them.

The wheel's library has ggml's quantizers and not the program around them, so the choice is written here, for the mixes
of MIXES, after ``llama_tensor_get_type_impl`` in llama.cpp's src/llama-quant.cpp (build 11549). tests/bench/llamacpp.py
holds the files against those of ``llama-quantize``, byte by byte.
"""

from collections.abc import Mapping

# name: the type of most matrices
MIXES = {
    "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q5_k_s": "Q5_K",
    "q5_1": "Q5_1", "q5_0": "Q5_0", "q4_k_m": "Q4_K", "q4_k_s": "Q4_K", "q4_1": "Q4_1", "q4_0": "Q4_0",
}  # fmt: skip
# llama.cpp's own numbers for them, which a file states in general.file_type
FILE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q4_k_s": 14, "q4_k_m": 15,
    "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "bf16": 32,
}  # fmt: skip
BLOCK = {"Q8_0": 32, "Q6_K": 256, "Q5_K": 256, "Q4_K": 256, "Q5_1": 32, "Q5_0": 32, "Q4_1": 32, "Q4_0": 32}
# where a row is no multiple of a type's block
NARROWER_BLOCK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
UNTOUCHED = ("position_embd.weight", "token_types.weight")


def assign(
    rows: Mapping[str, tuple[int, ...]], mix: str, *, layers: int, importance: bool, seventy: bool = False
) -> dict[str, str]:
    """The ggml type of every tensor.

    rows: GGUF names with shapes as torch has them, (rows, row length) for a matrix. layers: blocks of the model.
    importance: whether an importance matrix is given. seventy: a Llama of 80 blocks with grouped heads (70B).
    """
    order = sorted(rows, key=_layer)
    tied = "output.weight" not in rows
    values = [name for name in order if _is_value(name)]
    downs = [name for name in order if name.endswith(".ffn_down.weight")]
    types = {}
    for name in order:
        shape = rows[name]
        if len(shape) < 2 or name in UNTOUCHED or not name.endswith("weight") or "_norm.weight" in name:
            types[name] = "F32"
            continue
        kind = MIXES[mix]
        if kind in BLOCK:
            if name == "output.weight" or (tied and name == "token_embd.weight"):
                kind = _head(kind, shape[-1])
            elif name in values:
                kind = _value(kind, mix, values.index(name), len(values), seventy)
            elif name in downs:
                kind = _down(kind, mix, downs.index(name), layers, importance)
            kind = fitting(kind, shape[-1])
        types[name] = kind
    return types


def fitting(kind: str, row: int) -> str:
    """``kind``, or what llama.cpp takes in its place where ``row`` values are no whole number of blocks."""
    if row % BLOCK[kind] == 0:
        return kind
    kind = NARROWER_BLOCK.get(kind, kind)
    return kind if row % BLOCK[kind] == 0 else "F16"


def _head(kind: str, row: int) -> str:
    return "Q8_0" if kind == "Q8_0" or row % BLOCK[kind] else "Q6_K"


def _value(kind: str, mix: str, index: int, count: int, seventy: bool) -> str:
    if mix in ("q4_k_m", "q5_k_m") and more_bits(index, count):
        kind = "Q6_K"
    elif mix == "q4_k_s" and index < 4:
        kind = "Q5_K"
    return "Q5_K" if seventy and kind == "Q4_K" else kind


def _down(kind: str, mix: str, index: int, count: int, importance: bool) -> str:
    if mix in ("q4_k_m", "q5_k_m") and more_bits(index, count):
        return "Q6_K"
    if index < count // 8 and mix == "q4_k_s":
        return "Q5_K"
    if index < count // 8 and importance and mix in ("q4_0", "q5_0"):
        return {"q4_0": "Q4_1", "q5_0": "Q5_1"}[mix]
    return kind


def more_bits(index: int, count: int) -> bool:
    """The layers that the mixes named M keep wider: the first and last eighth, and every third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _is_value(name: str) -> bool:
    return "attn_v.weight" in name or "attn_qkv.weight" in name


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1
