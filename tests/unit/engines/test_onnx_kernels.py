"""Integer products against sums by hand: this machine's are right, and one that is not is named."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from workflow.tradeoff.engines import onnx_kernels
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import matmul_nbits


@pytest.fixture
def path(tmp_path):
    """Two INT8 products, one as wide as a vocabulary, and a float one."""
    weights = {
        "a": np.ones((24, 20), np.int8), "b": np.ones((24, 20), np.int8), "head": np.ones((16, 50257), np.int8),
        "f": np.ones((24, 20), np.float32),
    }  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "f"], ["xf"])]
    nodes += [helper.make_node("MatMulInteger", ["x", name], [f"x{name}"]) for name in ("a", "b", "head")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "xf")]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    onnx.save_model(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_shapes_are_the_files_own_each_once_and_the_rest_of_a_wide_one(path):
    assert onnx_kernels.shapes(path) == [(24, 20, np.int8), (16, 1024 + 50257 % 1024, np.int8)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 100, 320])
def test_this_machines_products_are_right(columns, dtype):
    assert onnx_kernels.right(70, columns, dtype, 1)


def planted(fault):
    """ONNX Runtime's product with a fault in the columns beyond the last multiple of 16, as AMX's had."""
    real = onnx_kernels.product

    def product(weight, *rest):
        run, tail = real(weight, *rest), weight.shape[1] // 16 * 16
        return lambda given: fault(run(given), tail)

    return product


def off_by_one(sums, tail):
    sums[:, tail:] += 1
    return sums


def not_the_same_twice(sums, tail):
    sums[-1, tail:] += np.random.default_rng().integers(0, 1000)
    return sums


@pytest.mark.parametrize("fault", [off_by_one, not_the_same_twice])
def test_a_wrong_kernel_is_named_and_int8_not_blamed(path, monkeypatch, fault):
    onnx_kernels.check(path, 1)
    monkeypatch.setattr(onnx_kernels, "product", planted(fault))
    with pytest.raises(CellFailure, match=r"unsupported: ONNX Runtime .* 2 of this file's matrices \(24×20, 16×1105\)"):
        onnx_kernels.check(path, 1)


def blocked(folder, weight: np.ndarray, **recipe):
    """A function from activations (n, rows) to ONNX Runtime's MatMulNBits with ``weight`` in blocks."""
    rows, columns = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["given", "weight"], ["product"], name="product")],
        "product",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weight, "weight")],
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=domains, ir_version=9), folder / "float.onnx")
    matmul_nbits.quantize(folder / "float.onnx", folder / "blocks.onnx", {"algorithm": "rtn", **recipe})
    session = ort.InferenceSession(folder / "blocks.onnx", providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {"given": given})[0]


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_token_alone_is_multiplied_as_it_is_among_others(tmp_path, bits, block, symmetric, level):
    """ONNX Runtime's issue 29853: on AVX2, one row through 4-bit blocks with zero points came out 46% wrong."""
    generator = np.random.default_rng(0)
    # off zero, so that a zero point that is left out shows
    weight = (generator.normal(size=(256, 96)) + 0.4).astype(np.float32)
    given = (generator.normal(size=(4, 256)) + 0.5).astype(np.float32)
    run = blocked(tmp_path, weight, bits=bits, block=block, symmetric=symmetric, accuracy_level=level)
    many, alone = run(given), np.concatenate([run(row[None]) for row in given])
    exact = given.astype(np.float64) @ weight
    # the same integers summed in another order, in float32
    assert np.linalg.norm(alone - many) < 1e-4 * np.linalg.norm(many)
    # a block spans about 5 standard deviations: 16 steps of it err by 5 / 15 / √12 = 10% of one, 256 by 0.6%, in a sum
    # whose mean terms add up; activations of 8 bits add about as little as the latter
    assert np.linalg.norm(many - exact) < (0.1 if bits == 4 else 0.01) * np.linalg.norm(exact)
