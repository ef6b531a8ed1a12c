"""Weights of a linear layer in each storage format, and the product ``x @ weight.T`` that reads them.

The products of one row are written so that ``torch.compile`` turns each into one kernel that reads the stored bytes
once, dequantizing in registers (the way gpt-fast does it). They hold no tensor-core product, so they need float16 and
nothing newer: compute capability 7.0 and up. bitsandbytes brings its own kernels, called as torch operators.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from workflow.tradeoff.errors import CellFailure

GROUP = 64  # weights that share a scale in Int4, as many as in a block of NF4
LANES = 8  # 4-bit weights in a 32-bit word


class Dense(NamedTuple):
    """Float weight (N, K)."""

    weight: Tensor
    bias: Tensor | None


class Int8(NamedTuple):
    """Weight-only: int8 (N, K), one float32 scale a row (N,), symmetric, rounded to nearest."""

    weight: Tensor
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


def product(x: Tensor, weight: Weight) -> Tensor:
    """x (..., K) to (..., N), in the dtype of x."""
    one = x.numel() == x.shape[-1]
    if isinstance(weight, Bnb4):
        return torch.ops.bitsandbytes.gemm_4bit(
            x,
            weight.weight,
            [weight.rows, weight.columns],
            weight.absmax,
            weight.blocksize,
            weight.kind,
            bias=weight.bias,
        )
    if isinstance(weight, BnbInt8):
        rows = x.reshape(-1, x.shape[-1])
        values, maxima, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(rows.to(torch.float16), 0.0)
        out = torch.ops.bitsandbytes.int8_scaled_mm(
            values, weight.weight, maxima, weight.absmax, bias=weight.bias, dtype=x.dtype
        )
        return out.reshape(*x.shape[:-1], -1)
    if isinstance(weight, Int8 | Int4) and one:
        sums = _int8_row(x, weight) if isinstance(weight, Int8) else _int4_row(x, weight)
    elif isinstance(weight, Dense) and one and torch.compiler.is_compiling():
        sums = (x.reshape(-1).float() * weight.weight.float()).sum(-1)
    else:
        return functional.linear(x, dequantize(weight, x.dtype), weight.bias)
    if weight.bias is not None:
        sums = sums + weight.bias.float()
    return sums.to(x.dtype).reshape(*x.shape[:-1], -1)


def _int8_row(x: Tensor, weight: Int8) -> Tensor:
    return (x.reshape(-1).float() * weight.weight.float()).sum(-1) * weight.scale


def _int4_row(x: Tensor, weight: Int4) -> Tensor:
    groups = weight.scale.shape[1]
    lanes = x.reshape(LANES, groups, LANES).float()
    words = weight.words.reshape(-1, groups, LANES)
    inputs = lanes.sum(0)
    sums = lanes[0] * (words & 15).float()
    for lane in range(1, LANES):
        sums = sums + lanes[lane] * ((words >> (4 * lane)) & 15).float()
    scaled = sums * weight.scale.float()[:, :, None] + inputs * weight.shift.float()[:, :, None]
    return scaled.sum((1, 2))


def dequantize(weight: Dense | Int8 | Int4, dtype: torch.dtype) -> Tensor:
    """The float weight (N, K) that the stored one stands for."""
    if isinstance(weight, Dense):
        return weight.weight
    if isinstance(weight, Int8):
        return (weight.weight.float() * weight.scale[:, None]).to(dtype)
    rows, groups = weight.scale.shape
    lanes = torch.stack([(weight.words >> (4 * lane)) & 15 for lane in range(LANES)], 1)
    values = lanes.reshape(rows, LANES, groups, LANES).float()
    values = values * weight.scale.float()[:, None, :, None] + weight.shift.float()[:, None, :, None]
    return values.reshape(rows, -1).to(dtype)


def quantize_int8(weight: Dense) -> Int8:
    """Round to nearest, symmetric, one scale a row: absolute maximum ÷ 127."""
    values = weight.weight.float()
    scale = (values.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return Int8((values / scale[:, None]).round().to(torch.int8), scale, weight.bias)


def quantize_int4(weight: Dense) -> Int4:
    """Round to nearest, asymmetric, in groups of 64: the range minimum to maximum in 15 steps.

    Raises CellFailure when the columns are no multiple of 64.
    """
    rows, columns = weight.weight.shape
    if columns % GROUP:
        raise CellFailure("unsupported", f"INT4 needs a multiple of {GROUP} inputs a layer; this one has {columns}")
    # (N, lane, group, word in the group): see Int4
    values = weight.weight.float().reshape(rows, LANES, columns // GROUP, LANES)
    low, high = values.amin((1, 3)), values.amax((1, 3))
    # the constants are rounded first, so that the integers are the nearest to what will be read back
    scale = ((high - low) / 15).clamp(min=torch.finfo(torch.float16).tiny).half()
    shift = low.half()
    steps = (values - shift.float()[:, None, :, None]) / scale.float()[:, None, :, None]
    lanes = steps.round().clamp(0, 15).to(torch.int64).reshape(rows, LANES, -1)
    words = sum(lanes[:, lane] << (4 * lane) for lane in range(LANES))
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)  # the same 32 bits, signed
    return Int4(words.contiguous(), scale, shift, weight.bias)


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
    if isinstance(weight, Int4):
        return weight.words.numel() * LANES, 4
    return weight.weight.numel(), 8 * weight.weight.element_size()
