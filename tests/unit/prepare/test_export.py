"""The export's two files: a graph without weights, and the weights, each written once and where the graph looks."""

import shutil
from collections import namedtuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from tests import tiny
from workflow.tradeoff import files
from workflow.tradeoff.engines import hf
from workflow.tradeoff.engines.onnx_graph import graph_proof
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.prepare import export, external
from workflow.tradeoff.variants import VARIANTS


@pytest.fixture(scope="module", params=tiny.KINDS)
def model(request, tmp_path_factory):
    folder = tiny.build(tmp_path_factory.mktemp("model") / "model", request.param)
    files.write_manifest(folder, source={})
    return folder


def run(model, output):
    export.main(["--model-folder", str(model), "--cache", "--threads", "1", "--output", str(output)])
    return files.read_manifest(output)


def test_the_traced_file_holds_no_weights(model, tmp_path):
    """What keeps the stage's memory down: torch serializes no weight, each is an input by its own name."""
    network = hf.load_model(VARIANTS["torch-fp32"], model, "cpu")
    export.trace(network, tmp_path, cache=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not graph.initializer
    inputs = {entry.name for entry in graph.input}
    matrices = {name for name, tensor in network.named_parameters() if tensor.ndim == 2}
    assert matrices <= inputs
    constants = [node.attribute[0].t for node in graph.node if node.op_type == "Constant"]
    assert max(np.prod(tensor.dims, dtype=int) for tensor in constants) < min(network.config.hidden_size**2, 4096)


def test_every_matrix_is_written_once_as_its_product_takes_it(model, tmp_path):
    manifest = run(model, tmp_path / "onnx")
    assert set(manifest["files"]) == {"model.onnx", "model.onnx.data"}
    weights = hf.load_model(VARIANTS["torch-fp32"], model, "cpu").state_dict()
    lazy = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False).graph
    assert all(uses_external_data(tensor) for tensor in lazy.initializer)
    assert not {entry.name for entry in lazy.input} & set(weights)
    graph = onnx.load(tmp_path / "onnx" / "model.onnx").graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in found]
    linear = 4 if "transformer.wte.weight" in weights else 7  # GPT-2 has q, k and v in one
    assert len(products) == 2 * linear + 1
    # torch keeps a matrix (out, in), GPT-2's Conv1D and ONNX (in, out)
    head = found[products[-1].input[1]]
    assert np.array_equal(head, weights["lm_head.weight"].numpy().T)
    matrices = sum(tensor.nbytes for tensor in weights.values() if tensor.ndim == 2)
    assert sum(array.nbytes for array in found.values() if array.ndim == 2) == matrices
    proof = graph_proof(tmp_path / "onnx" / "model.onnx", 8)
    assert proof["linear_weights"] == sum(found[node.input[1]].size for node in products)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = tiny.build(tmp_path / "model")
    files.write_manifest(model, source={})
    assert run(model, tmp_path / "one")["digest"] == run(model, tmp_path / "two")["digest"]


def test_a_full_disk_is_said_before_the_weights_are_written(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 10))
    with pytest.raises(UserError, match=r"exporting model needs .* free some space"):
        run(model, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_weight_that_is_read_both_ways_is_stored_both_ways(tmp_path):
    """A tied head by hand: a row of the table, times the table's transpose; and a scale that only stays."""
    path = tmp_path / "model.onnx"
    table, scale = torch.randn(5, 3), torch.randn(3)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["scaled", "turned"], ["logits"]),
    ]
    shapes = {"table": [5, 3], "scale": [3]}
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])]
    graph = helper.make_graph(nodes, "tied", inputs, outputs)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    external.attach(path, {"table": table, "scale": scale, "unused": torch.zeros(2)})
    written = onnx.load(path, load_external_data=False).graph
    assert [entry.name for entry in written.input] == ["ids"]
    assert [node.op_type for node in written.node] == ["Gather", "Mul", "MatMul"]
    assert [tensor.name for tensor in written.initializer] == ["table", "turned", "scale"]
    assert (tmp_path / "model.onnx.data").stat().st_size == 4 * (15 + 15 + 3)
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(None, {"ids": np.array([4, 0])})
    np.testing.assert_allclose(logits, (table[[4, 0]] * scale @ table.T).numpy(), rtol=1e-5, atol=1e-6)
