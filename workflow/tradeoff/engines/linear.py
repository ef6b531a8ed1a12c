"""Weights of a linear layer in each storage format, and the product ``x @ weight.T`` that reads them.

On a GPU the product of one row runs in ``gemv``'s kernels; bitsandbytes brings its own, called as torch operators. All
else, and the CPU, dequantizes and multiplies in torch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from workflow.tradeoff.errors import CellFailure

GROUP = 64  # weights that share a scale in Int4, as many as in a block of NF4


class Dense(NamedTuple):
    """Float weight (N, K)."""

    weight: Tensor
    bias: Tensor | None


class Int8(NamedTuple):
    """Weight-only: bytes in int32 words (N, K/4), one float32 scale a row (N,): weight = scale × (byte - 128).

    Bits 8i to 8i+7 of word j hold column i·K/4 + j. Symmetric, rounded to nearest.
    """

    words: Tensor
    scale: Tensor
    bias: Tensor | None


class Int4(NamedTuple):
    """Weight-only: int32 words (N, K/8), float16 scale and shift (N, K/64): weight = scale × q + shift, q in 0..15.

    Bits 4i to 4i+3 of word j hold column i·K/8 + j, so that consecutive words meet consecutive inputs in all eight
    lanes. A group is eight consecutive words: 64 columns.
    """

    words: Tensor
    scale: Tensor
    shift: Tensor
    bias: Tensor | None


class BnbInt8(NamedTuple):
    """bitsandbytes LLM.int8() with threshold 0: int8 (N, K) and absolute maxima of the rows (N,)."""

    weight: Tensor
    absmax: Tensor
    bias: Tensor | None


class Bnb4(NamedTuple):
    """bitsandbytes NF4 or FP4: packed (N·K/2, 1) and the absolute maximum of each block."""

    weight: Tensor
    absmax: Tensor
    bias: Tensor | None
    rows: int
    columns: int
    blocksize: int
    kind: str


Weight = Dense | Int8 | Int4 | BnbInt8 | Bnb4


def product(
    x: Tensor, weight: Weight, residual: Tensor | None = None, gain: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    """x (..., K) to (..., N) in the dtype of x: x @ weight.T + bias + residual.

    gain (K,): x is RMS-normalized on the way in; only where ``normalizes`` says so.
    """
    one = x.numel() == x.shape[-1]
    if one and x.is_cuda and isinstance(weight, Dense | Int8 | Int4):
        sums = _row_on_gpu(x.reshape(-1), weight, residual, gain, eps)
        return sums.reshape(*x.shape[:-1], -1)
    if isinstance(weight, Bnb4):
        sums = torch.ops.bitsandbytes.gemm_4bit(
            x,
            weight.weight,
            [weight.rows, weight.columns],
            weight.absmax,
            weight.blocksize,
            weight.kind,
            bias=weight.bias,
        )
    elif isinstance(weight, BnbInt8):
        rows = x.reshape(-1, x.shape[-1])
        values, maxima, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(rows.to(torch.float16), 0.0)
        sums = torch.ops.bitsandbytes.int8_scaled_mm(
            values, weight.weight, maxima, weight.absmax, bias=weight.bias, dtype=x.dtype
        ).reshape(*x.shape[:-1], -1)
    else:
        sums = functional.linear(x, dequantize(weight, x.dtype), weight.bias)
    return sums if residual is None else sums + residual


def normalizes(x: Tensor, weight: Weight) -> bool:
    """Whether the product of one row x with this weight takes RMS normalization along."""
    return x.is_cuda and isinstance(weight, Dense | Int8 | Int4)


def _row_on_gpu(x: Tensor, weight: Dense | Int8 | Int4, residual, gain, eps: float) -> Tensor:
    from workflow.tradeoff.engines import gemv  # Triton comes with torch for CUDA only

    if isinstance(weight, Dense):
        stored, bits = (weight.weight,), None
    elif isinstance(weight, Int8):
        stored, bits = (weight.words, weight.scale, weight.scale), 8
    else:
        stored, bits = (weight.words, weight.scale, weight.shift), 4
    residual = None if residual is None else residual.reshape(-1)
    return gemv.product(x, stored, bits, weight.bias, residual, gain, eps)


def _unpack(words: Tensor, bits: int) -> Tensor:
    """Words (N, W) to their unsigned integers (N, lanes, W) int32, lane by lane."""
    mask = (1 << bits) - 1
    return torch.stack([(words >> (bits * lane)) & mask for lane in range(32 // bits)], 1)


def _pack(values: Tensor, bits: int) -> Tensor:
    """Unsigned integers (N, lanes, W) int64 to int32 words (N, W)."""
    words = sum(values[:, lane] << (bits * lane) for lane in range(32 // bits))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()  # the same bits, signed


def dequantize(weight: Dense | Int8 | Int4, dtype: torch.dtype) -> Tensor:
    """The float weight (N, K) that the stored one stands for."""
    if isinstance(weight, Dense):
        return weight.weight
    if isinstance(weight, Int8):
        values = _unpack(weight.words, 8).flatten(1) - 128
        return (values.float() * weight.scale[:, None]).to(dtype)
    rows, groups = weight.scale.shape
    values = _unpack(weight.words, 4).reshape(rows, 8, groups, 8).float()
    values = values * weight.scale.float()[:, None, :, None] + weight.shift.float()[:, None, :, None]
    return values.reshape(rows, -1).to(dtype)


def quantize_int8(weight: Dense) -> Int8:
    """Round to nearest, symmetric, one scale a row: absolute maximum ÷ 127."""
    values = weight.weight.float()
    scale = (values.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    steps = (values / scale[:, None]).round().to(torch.int64) + 128
    return Int8(_pack(steps.reshape(len(steps), 4, -1), 8), scale, weight.bias)


def quantize_int4(weight: Dense) -> Int4:
    """Round to nearest, asymmetric, in groups of 64: the range minimum to maximum in 15 steps.

    Raises CellFailure when the columns are no multiple of 64.
    """
    rows, columns = weight.weight.shape
    if columns % GROUP:
        raise CellFailure("unsupported", f"INT4 needs a multiple of {GROUP} inputs a layer; this one has {columns}")
    # (N, lane, group, word in the group): see Int4
    values = weight.weight.float().reshape(rows, 8, columns // GROUP, 8)
    low, high = values.amin((1, 3)), values.amax((1, 3))
    # the constants are rounded first, so that the integers are the nearest to what will be read back
    scale = ((high - low) / 15).clamp(min=torch.finfo(torch.float16).tiny).half()
    shift = low.half()
    steps = (values - shift.float()[:, None, :, None]) / scale.float()[:, None, :, None]
    steps = steps.round().clamp(0, 15).to(torch.int64)
    return Int4(_pack(steps.reshape(rows, 8, -1), 4), scale, shift, weight.bias)


def from_module(module: nn.Module) -> Weight:
    """The weight of a torch, GPT-2 or bitsandbytes linear layer, sharing its storage where the layout allows."""
    name = type(module).__name__
    bias = None if module.bias is None else module.bias.data
    if name == "Linear4bit":
        state = module.weight.quant_state
        rows, columns = state.shape
        return Bnb4(
            module.weight.data.reshape(-1, 1), state.absmax, bias, rows, columns, state.blocksize, state.quant_type
        )
    if name == "Linear8bitLt":
        scales = module.weight.SCB if module.state.SCB is None else module.state.SCB
        return BnbInt8(module.weight.data, scales, bias)
    if isinstance(module, Conv1D):
        return Dense(module.weight.data.t().contiguous(), bias)
    return Dense(module.weight.data, bias)


def concatenate(parts: list[Weight]) -> Weight:
    """One layer that gives the outputs of all ``parts``, which take the same input."""
    first = parts[0]
    bias = None if first.bias is None else torch.cat([part.bias for part in parts])
    if isinstance(first, Dense):
        return Dense(torch.cat([part.weight for part in parts]), bias)
    if isinstance(first, BnbInt8):
        return BnbInt8(torch.cat([part.weight for part in parts]), torch.cat([part.absmax for part in parts]), bias)
    if isinstance(first, Bnb4):
        # blocks run along the flattened rows: whole blocks a layer, so that they stay whole behind one another
        if any(part.rows * part.columns % part.blocksize for part in parts):
            raise CellFailure("unsupported", f"a layer of {first.columns} inputs has a partial 4-bit block")
        return first._replace(
            weight=torch.cat([part.weight for part in parts]),
            absmax=torch.cat([part.absmax for part in parts]),
            bias=bias,
            rows=sum(part.rows for part in parts),
        )
    raise TypeError(f"{type(first).__name__} is made from concatenated layers, not concatenated")


def size(weight: Weight) -> tuple[int, int]:
    """Number of weights, and the bits that each is stored in."""
    if isinstance(weight, Bnb4):
        return weight.rows * weight.columns, 4
    if isinstance(weight, Int8 | Int4):
        bits = 8 if isinstance(weight, Int8) else 4
        return weight.words.numel() * 32 // bits, bits
    return weight.weight.numel(), 8 * weight.weight.element_size()
