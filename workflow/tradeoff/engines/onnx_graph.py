"""What an ONNX file holds: its weights by dtype, its nodes, and the share of its matrices that is quantized."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import onnx
from onnx import helper

# op type: indices of the inputs that may hold a matrix
PRODUCTS = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Conv": (1,),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
    "MoE": (2, 4, 6),
    "QMoE": (2, 5, 8),
}
# what may stand between a weight and its product: its layout, its dtype, or the choice of an expert
PASSED = {
    "Transpose", "DequantizeLinear", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Concat",
    "Slice", "Split", "Gather", "GatherND", "GatherElements", "Expand",
}  # fmt: skip
LOOKUPS = {"Gather", "GatherND", "GatherElements", "GatherBlockQuantized"}


def graph_proof(path: Path, bits: int) -> dict:
    """What ``Engine.proof`` says of the weights, and ``nodes``, read from a model file.

    bits: of a weight as the variant's name says it; weights stored in other widths count as not quantized. 0: as a
    published file or a mixed recipe has them, any below 16.
    """
    graph = onnx.load(path, load_external_data=False).graph
    nodes = list(every_node(graph))
    weights = constants(graph, nodes)
    makers = {output: node for node in nodes for output in node.output}
    readers: dict[str, set[str]] = {name: set() for name in weights}
    for node in nodes:
        for name in readers.keys() & set(node.input):
            readers[name].add(node.op_type)
    weight_bytes: Counter = Counter()
    matrices = products(nodes, weights, makers)
    unread = 0
    for name, tensor in weights.items():
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = stored_bytes(tensor)
        weight_bytes[dtype.name] += size
        # of a table, and of rotary positions, a token reads one row
        if name not in matrices and (readers[name] <= LOOKUPS or name in ("cosines", "sines")):
            unread += size
    total = sum(count for count, _ in matrices.values())
    quantized = sum(count for count, width in matrices.values() if (width == bits if bits else width < 16))
    return {
        "weight_bytes": dict(weight_bytes),
        "unread_bytes": unread,
        "nodes": dict(Counter(node.op_type for node in nodes)),
        "linear_weights": total,
        "linear_quantized": quantized,
        "quantized_fraction": quantized / total if total else 0.0,
        "weights_by_bits": by_bits(matrices),
    }


def by_bits(matrices: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Weights of the products' matrices by the bits that each is stored in."""
    counts: Counter = Counter()
    for count, bits in matrices.values():
        counts[str(bits)] += count
    return dict(counts)


def every_node(graph) -> Iterator:
    """The nodes of a graph and of the branches and loops in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from every_node(inner)


def constants(graph, nodes) -> dict:
    """Tensors that the file itself holds: the initializers, and the constants that have a shape."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in nodes:
        if node.op_type == "Constant":
            found.update(
                (node.output[0], entry.t) for entry in node.attribute if entry.name == "value" and entry.t.dims
            )
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= {tensor.name: tensor for tensor in inner.initializer}
    return found


def stored_bytes(tensor) -> int:
    """Bytes of a tensor's numbers; two of four bits share one."""
    return -(-prod(tensor.dims) * width(tensor) // 8)


def width(tensor) -> int:
    """Bits of a number of a tensor."""
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    return (
        4 if name in ("INT4", "UINT4", "FLOAT4E2M1") else 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )


def products(nodes, weights, makers) -> dict[str, tuple[int, int]]:
    """Every matrix that a product multiplies by, by name: number of weights, and the bits of each.

    A matrix of which each product takes a part (an expert, a slice of fused projections) counts once, as a whole.
    """
    found = {}
    for node in nodes:
        if node.op_type == "MatMulNBits":
            values = {attribute.name: attribute.i for attribute in node.attribute}
            found[node.input[1]] = values["K"] * values["N"], values["bits"]
            continue
        for index in PRODUCTS.get(node.op_type, ()):
            # rows of an embedding may be the left side of a product; experts are picked on the right
            passed = PASSED if index else PASSED - LOOKUPS
            name = source(node.input[index], weights, makers, passed) if index < len(node.input) else None
            if name is not None and sum(size > 1 for size in weights[name].dims) >= 2:
                found[name] = prod(weights[name].dims), width(weights[name])
    return found


def source(name: str, weights, makers, passed: set[str]) -> str | None:
    """The weight that a value is, seen through what only passes it on; None for any other value."""
    while name not in weights:
        maker = makers.get(name)
        if maker is None or maker.op_type not in passed:
            return None
        name = maker.input[0]
    return name
