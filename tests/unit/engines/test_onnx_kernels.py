"""Integer products against sums by hand: this machine's are right, and one that is not is named."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workflow.tradeoff.engines import onnx_kernels
from workflow.tradeoff.errors import CellFailure


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
