"""Whether ONNX Runtime's integer products are right on this machine: made-up numbers of a file's own shapes, by hand.

Some releases multiply wrongly on some CPUs (1.23 with Intel's AMX, for widths that are no multiple of 16, and not even
the same twice: its issue 26324; repaired in pull request 27671, which is older than release 1.25). What comes out looks
like a bad quantization. Seen from outside only sums by hand tell, and they take milliseconds.
"""

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from workflow.tradeoff.engines import onnx_graph
from workflow.tradeoff.errors import CellFailure

INTEGER = {"MatMulInteger": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3}
ROWS = (1, 2, 17, 33)  # of activations: one token, and prompts that fill a block of 16 or 32 rows and begin another
COLUMNS = 1024  # of a wider matrix so many are tried, and those that its width leaves over
# weights of 7 bits: of 8, CPUs without VNNI add up two products in 16 bits, which is a limit of theirs, and known
LEAST, MOST = -64, 63
checked: set[Path] = set()  # files whose kernels were found right in a process that this one was forked off


def check(path: Path, threads: int) -> None:
    """Raise CellFailure unless this machine's integer products of the shapes in the file at ``path`` are right.

    Nothing is done for one of ``checked``.
    """
    if path in checked:
        return
    wrong = [shape for shape in shapes(path) if not right(*shape, threads)]
    if wrong:
        listed = ", ".join(f"{rows}×{columns}" for rows, columns, _ in wrong[:4])
        raise CellFailure(
            "unsupported",
            f"ONNX Runtime {ort.__version__} adds up integer products wrongly on this CPU, for {len(wrong)} of this "
            f"file's matrices ({listed}): a fault of its kernels (its issue 26324: AMX), not of INT8; "
            "try a release from 1.25 on",
        )


def shapes(path: Path) -> list[tuple[int, int, type]]:
    """Rows, columns and dtype of the matrices that integer products take, each once; wide ones cut as in COLUMNS."""
    graph = onnx.load(path, load_external_data=False).graph
    nodes = list(onnx_graph.every_node(graph))
    weights = onnx_graph.constants(graph, nodes)
    found = {}
    for node in nodes:
        tensor = weights.get(node.input[INTEGER[node.op_type]]) if node.op_type in INTEGER else None
        if tensor is not None and len(tensor.dims) == 2 and prod(tensor.dims):
            rows, columns = tensor.dims
            columns = columns if columns <= 2 * COLUMNS else COLUMNS + columns % COLUMNS
            found[rows, columns, helper.tensor_dtype_to_np_dtype(tensor.data_type).type] = None
    return list(found)


def right(rows: int, columns: int, dtype: type, threads: int) -> bool:
    """Whether MatMulInteger's sums over a matrix (rows, columns) are those by hand, for each of ROWS, twice."""
    generator = np.random.default_rng(rows * columns)
    shift = 0 if dtype is np.int8 else 128
    weight = (generator.integers(LEAST, MOST, (rows, columns), endpoint=True) + shift).astype(dtype)
    zeros = np.uint8(113), dtype(shift + 3)
    run = product(weight, *zeros, threads)
    exact = weight.astype(np.float64) - float(zeros[1])
    for count in ROWS:
        given = generator.integers(0, 255, (count, rows), endpoint=True, dtype=np.uint8)
        sums = (given.astype(np.float64) - float(zeros[0])) @ exact
        if not all(np.array_equal(run(given), sums) for _ in range(2)):
            return False
    return True


def product(weight: np.ndarray, zero_given: np.uint8, zero_weight, threads: int):
    """A function from activations (n, rows) uint8 to ONNX Runtime's integer products with ``weight``."""
    named = {"weight": weight, "zero": np.array(zero_given), "shift": np.array(zero_weight)}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["given", "weight", "zero", "shift"], ["sums"])],
        "product",
        [helper.make_tensor_value_info("given", TensorProto.UINT8, [None, weight.shape[0]])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [None, weight.shape[1]])],
        [numpy_helper.from_array(array, name) for name, array in named.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {"given": given})[0]
