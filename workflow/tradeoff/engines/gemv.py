"""One row times a weight (N, K), as Triton kernels: each stored byte is read once and dequantized in registers.

Written here because no library serves: of torch's own kernels INT8 (``_weight_int8pack_mm``) took 62 µs for a weight of
2048 × 2048 on an H100 where these take 4, and INT4 (tinygemm) needs bfloat16 and compute capability 8.0; GemLite adds
up with atomics, in an order that changes from run to run; and torch.compile's kernel for the same expression reads at
half of the memory's bandwidth. No tensor-core product is used: compute capability 7.5 is enough. ``linear`` holds the
same sums in plain torch: the truth in the tests.
"""

import torch
import triton
from triton import language as tl


def _configs(*shapes: tuple[int, int, int]) -> list[triton.Config]:
    """Tilings to choose from: rows, columns, warps."""
    return [triton.Config({"ROWS": rows, "COLUMNS": columns}, num_warps=warps) for rows, columns, warps in shapes]


def _timed(call, quantiles):
    return triton.testing.do_bench(call, warmup=3, rep=15, quantiles=quantiles)


ONE = 0x3F800000  # the bits of 1.0 in float32

# A choice is timed once for each (N, K) and kept on disk: every process on a machine sums in the same order.
CHOICE = {"do_bench": _timed, "cache_results": True}


@triton.jit
def _finish(
    total, squares, row, inside, inputs, eps, bias, residual, out,
    HAS_GAIN: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
):  # fmt: skip
    if HAS_GAIN:
        total *= tl.rsqrt(tl.sum(squares, 0) / inputs + eps)
    if HAS_BIAS:
        total += tl.load(bias + row, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        # the sum is rounded before the residual is added, as torch does
        total = total.to(out.dtype.element_ty).to(tl.float32)
        total += tl.load(residual + row, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row, total.to(out.dtype.element_ty), mask=inside)


FLOAT = _configs(
    (1, 1024, 2), (2, 1024, 4), (4, 512, 4), (4, 1024, 4), (8, 256, 4), (8, 512, 8), (2, 2048, 8), (1, 512, 1)
)


@triton.autotune(configs=FLOAT, key=["rows", "columns"], **CHOICE)
@triton.jit
def _float(
    x, gain, weight, bias, residual, out, rows, columns, eps,
    HAS_GAIN: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Weights (rows, columns) in float16, bfloat16 or float32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    base = weight + row[:, None].to(tl.int64) * columns
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        there = column < columns
        value = tl.load(x + column, mask=there, other=0.0).to(tl.float32)
        if HAS_GAIN:
            squares += value * value
            value *= tl.load(gain + column, mask=there, other=0.0).to(tl.float32)
        part = tl.load(base + column[None, :], mask=inside[:, None] & there[None, :], other=0.0)
        sums += part.to(tl.float32) * value[None, :]
    _finish(
        tl.sum(sums, 1), squares, row, inside, columns, eps, bias, residual, out, HAS_GAIN, HAS_BIAS, HAS_RESIDUAL
    )  # fmt: skip


PACKED = _configs(
    (2, 128, 1), (2, 256, 2), (4, 128, 1), (8, 128, 1), (16, 64, 1), (8, 256, 2), (4, 256, 2), (1, 128, 1)
)


@triton.autotune(configs=PACKED, key=["rows", "columns", "BITS"], **CHOICE)
@triton.jit
def _packed(
    x, gain, words, scale, shift, bias, residual, out, rows, columns, eps, one,
    BITS: tl.constexpr, HAS_GAIN: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Weights of 8 or 4 bits in words (rows, columns); see ``linear.Int8`` and ``linear.Int4`` for their order.

    The instructions for a weight, not its bytes, would hold this kernel back, so there are few: bits that are put below
    the exponent of 1.0 (``one``, a run-time value, so that mask and exponent are one instruction) make the float
    1 + q/2^k without a conversion, the input is scaled by 2^k, and its own sum is taken off for the 1.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    base = words + row[:, None].to(tl.int64) * columns
    group = row[:, None].to(tl.int64) * (columns // 8)
    sums = tl.zeros((ROWS, COLUMNS // 8 if BITS == 4 else COLUMNS), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        there = column < columns
        mask = inside[:, None] & there[None, :]
        word = tl.load(base + column[None, :], mask=mask, other=0)
        inputs = tl.zeros((COLUMNS,), tl.float32)
        ones = tl.zeros((COLUMNS,), tl.float32)
        products = tl.zeros((ROWS, COLUMNS), tl.float32)
        for lane in tl.static_range(32 // BITS):
            value = tl.load(x + lane * columns + column, mask=there, other=0.0).to(tl.float32)
            if HAS_GAIN:
                squares += value * value
                value *= tl.load(gain + lane * columns + column, mask=there, other=0.0).to(tl.float32)
            inputs += value
            # lanes share a shift: two of 8 bits come to lie below the exponent (1 + q/2^16, then 1 + q/2^8), and of
            # 4 bits three, two and three (1 + q/2^12, 2^8, 2^4)
            if BITS == 8:
                moved = word << 7 if lane < 2 else word >> 9
                field = (moved & (0x7F80 << (8 * (lane % 2)))) | one
                scaled = value * (1 << (16 - 8 * (lane % 2)))
            else:
                moved = word << 11 if lane < 3 else word << 3 if lane < 5 else word >> 9
                field = (moved & (0x7800 << (4 * (lane if lane < 3 else lane - 2 if lane < 5 else lane - 5)))) | one
                scaled = value * (1 << (12 - 4 * (lane if lane < 3 else lane - 2 if lane < 5 else lane - 5)))
            ones += scaled
            products += field.to(tl.float32, bitcast=True) * scaled[None, :]
        if BITS == 4:
            # eight words share their constants: summed first, so that these are loaded once
            block = start // 8 + tl.arange(0, COLUMNS // 8)
            known = inside[:, None] & (block < columns // 8)[None, :]
            steps = tl.load(scale + group + block[None, :], mask=known, other=0.0).to(tl.float32)
            lowest = tl.load(shift + group + block[None, :], mask=known, other=0.0).to(tl.float32)
            products = tl.sum(tl.reshape(products - ones[None, :], (ROWS, COLUMNS // 8, 8)), 2)
            inputs = tl.sum(tl.reshape(inputs, (COLUMNS // 8, 8)), 1)
            sums += products * steps + inputs[None, :] * lowest
        else:
            sums += products - (ones + 128.0 * inputs)[None, :]
    total = tl.sum(sums, 1)
    if BITS == 8:
        total *= tl.load(scale + row, mask=inside, other=0.0)
    _finish(
        total, squares, row, inside, columns * (32 // BITS), eps, bias, residual, out,
        HAS_GAIN, HAS_BIAS, HAS_RESIDUAL,
    )  # fmt: skip


def product(x, stored: tuple, bits: int | None, bias, residual, gain=None, eps: float = 0.0) -> torch.Tensor:
    """x (K,) times a weight (N, K), plus bias and residual (N,): (N,) in the dtype of x.

    stored: the float weight alone (bits None), or words, scale and shift. gain (K,): x is RMS-normalized first, by
    ``gain`` and ``eps``. bias, residual and gain may be None.
    """
    rows, columns = stored[0].shape
    out = torch.empty(rows, dtype=x.dtype, device=x.device)
    present = [tensor is not None for tensor in (gain, bias, residual)]
    # an absent operand is never read: any pointer will do
    gain, bias, residual = (x if tensor is None else tensor for tensor in (gain, bias, residual))

    def grid(meta):
        return (triton.cdiv(rows, meta["ROWS"]),)

    if bits is None:
        _float[grid](x, gain, *stored, bias, residual, out, rows, columns, eps, *present)
    else:
        _packed[grid](x, gain, *stored, bias, residual, out, rows, columns, eps, ONE, bits, *present)
    return out
