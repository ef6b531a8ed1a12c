"""Operators of torch that its tracing exporter has no ONNX form of, or none that works: what models use of them.

``torch.onnx`` asks the function that is registered under an operator's name for its nodes.
"""

import re

import torch
from torch.onnx import symbolic_helper, symbolic_opset13

from workflow.tradeoff.errors import CellFailure

USES = {"aten::histc": "by which tokens are sent to experts"}


def register(opset: int) -> None:
    """Let exports of ``opset`` use these."""
    torch.onnx.register_custom_op_symbolic("aten::copy", copy, opset)
    torch.onnx.register_custom_op_symbolic("aten::repeat_interleave", repeat_interleave, opset)


def copy(g, target, source, non_blocking=None):
    """``target.copy_(source)``: LongRoPE takes its frequencies by the length of the text."""
    return g.op("Expand", source, g.op("Shape", target))


def repeat_interleave(g, given, repeats, dim=None, output_size=None):
    """``given.repeat_interleave(n, dim=-1)`` for a number n, which torch's own cannot write for a negative ``dim``."""
    times, axis = (symbolic_helper._maybe_get_const(value, "i") for value in (repeats, dim))
    rank = symbolic_helper._get_tensor_rank(given)
    if not isinstance(times, int) or not isinstance(axis, int) or rank is None or axis % rank != rank - 1:
        return symbolic_opset13.repeat_interleave(g, given, repeats, dim, output_size)
    each = symbolic_helper._unsqueeze_helper(g, given, [rank])
    wide = g.op("Expand", each, constant(g, [1] * rank + [times]))
    return g.op("Reshape", wide, constant(g, [0] * (rank - 1) + [-1]))


def lacking(error: torch.onnx.errors.UnsupportedOperatorError) -> CellFailure:
    """The failure of a model that computes with an operator that has no ONNX form."""
    named = re.search(r"\w+::\w+", str(error))
    operator = named[0] if named else "an operator of this model"
    use = f", {USES[operator]}" if operator in USES else ""
    return CellFailure("unsupported", f"torch's exporter has no ONNX form of {operator}{use}")


def constant(g, numbers: list[int]):
    return g.op("Constant", value_t=torch.tensor(numbers))
