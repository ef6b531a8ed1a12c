"""The kernels of one row: against plain torch on a card, and compiled for the cards of the study without one."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from workflow.tradeoff.engines import linear

pytest.importorskip("triton", reason="Triton comes with torch for CUDA only")

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from workflow.tradeoff.engines import gemv

KERNELS = {"float": (gemv._float.fn, None), "int8": (gemv._packed.fn, 8), "int4": (gemv._packed.fn, 4)}


@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_they_compile_for_a_t4_and_an_h100(name, capability):
    kernel, bits = KERNELS[name]
    known = {"HAS_GAIN": True, "HAS_BIAS": True, "HAS_RESIDUAL": True, "ROWS": 4, "COLUMNS": 128}
    known |= {"BITS": bits} if bits else {}
    kinds = {"words": "*i32", "rows": "i32", "columns": "i32", "one": "i32", "eps": "fp32"}
    kinds |= {"scale": "*fp32", "shift": "*fp32"} if bits == 8 else {}
    signature = {arg: "constexpr" if arg in known else kinds.get(arg, "*fp16") for arg in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=known)
    assert compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def test_interpreted_they_give_torchs_sums():
    """By Triton's interpreter, which has to be asked for before the first import: no card is needed."""
    check = """
from tests.unit.engines import test_gemv
for kernel in (test_gemv.gemv._float, test_gemv.gemv._packed):
    kernel.configs, kernel.cache_results = kernel.configs[:1], False  # nothing to time
for columns in (128, 192):
    test_gemv.compare(columns, "cpu", rows=5)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True)
    if "only 0-dimensional arrays" in done.stderr:
        pytest.skip("Triton's interpreter does not know this NumPy")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("columns", [128, 576, 768, 2048])
def test_on_a_card_they_give_torchs_sums(columns):
    compare(columns, "cuda")


def compare(columns: int, device: str, rows: int = 50) -> None:
    """Every kind of weight, with a residual and behind a norm, against plain torch."""
    generator = torch.Generator().manual_seed(columns)
    draw = lambda *size: torch.randn(*size, generator=generator).half()  # noqa: E731
    x, residual, gain = draw(columns), draw(rows), draw(columns)
    dense = linear.Dense(draw(rows, columns) * 0.1, draw(rows))
    weights = dense, linear.quantize_int8(dense), linear.quantize_int4(dense)
    for weight, (added, scaled) in itertools.product(weights, [(residual, None), (None, gain)]):
        normal = x.float()
        if scaled is not None:
            normal = normal * torch.rsqrt(normal.square().mean() + 1e-5) * gain.float()
        expected = normal @ linear.dequantize(weight, torch.float32).float().T + dense.bias.float()
        expected = expected.half() + (0 if added is None else added)
        moved = type(weight)(*(None if part is None else part.to(device) for part in weight))
        given = [None if part is None else part.to(device) for part in (x, added, scaled)]
        got = linear._row_on_gpu(given[0], moved, *given[1:], 1e-5)
        torch.testing.assert_close(got.cpu(), expected, atol=3e-2, rtol=3e-3)
