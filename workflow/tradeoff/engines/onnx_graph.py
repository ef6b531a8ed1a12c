"""What an ONNX file holds: its weights by dtype, its nodes, and the share of linear weights that is quantized."""

from collections import Counter
from math import prod
from pathlib import Path

import onnx
from onnx import helper

# op type: index of the input that holds the weight
PRODUCTS = {
    "MatMul": 1,
    "Gemm": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
}
PASSED = {"Transpose", "DequantizeLinear", "Cast"}  # what may stand between a weight and its product


def graph_proof(path: Path, bits: int) -> dict:
    """What ``Engine.proof`` says of the weights, and ``nodes``, read from a model file.

    bits: of a linear weight as the variant's name says it; weights stored in other widths count as not quantized.
    """
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    weight_bytes: Counter = Counter()
    unread = 0
    readers: dict[str, set[str]] = {name: set() for name in weights}
    for node in graph.node:
        for name in readers.keys() & set(node.input):
            readers[name].add(node.op_type)
    for name, tensor in weights.items():
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = prod(tensor.dims) * dtype.itemsize
        weight_bytes[dtype.name] += size
        # of a table, and of rotary positions, a token reads one row
        if readers[name] <= {"Gather", "GatherBlockQuantized"} or name in ("cosines", "sines"):
            unread += size
    linear = quantized = 0
    for node in graph.node:
        found = _linear(node, weights, makers)
        if found:
            linear += found[0]
            quantized += found[0] if found[1] == bits else 0
    return {
        "weight_bytes": dict(weight_bytes),
        "unread_bytes": unread,
        "nodes": dict(Counter(node.op_type for node in graph.node)),
        "linear_weights": linear,
        "linear_quantized": quantized,
        "quantized_fraction": quantized / linear if linear else 0.0,
    }


def _linear(node, weights, makers) -> tuple[int, int] | None:
    """Weights and bits of a product with a constant matrix; None for any other node."""
    if node.op_type == "MatMulNBits":
        values = {attribute.name: attribute.i for attribute in node.attribute}
        return values["K"] * values["N"], values["bits"]
    index = PRODUCTS.get(node.op_type)
    if index is None:
        return None
    name = node.input[index]
    while name not in weights:
        maker = makers.get(name)
        if maker is None or maker.op_type not in PASSED:
            return None
        name = maker.input[0]
    tensor = weights[name]
    return prod(tensor.dims), 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
