"""Weights of an ONNX file beside it, in one file of external data: no protobuf ever holds them."""

import contextlib
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data


class Data:
    """The data file of an ONNX file that is being made, written tensor by tensor."""

    def __init__(self, model: Path):
        """model: the ONNX file; its weights go to a file of the same name with ``.data`` appended."""
        self.path = model.with_name(f"{model.name}.data")
        self.file = open(self.path, "wb")  # noqa: SIM115 - closed by ``close``

    def close(self) -> None:
        self.file.close()

    def add(self, name: str, tensor: torch.Tensor) -> TensorProto:
        """Append a tensor's values; returns the initializer ``name`` that refers to them."""
        array = tensor.contiguous().numpy()
        offset = self.file.tell()
        array.tofile(self.file)
        proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        proto.raw_data = b""  # set_external_data asks for the field
        set_external_data(proto, self.path.name, offset, array.nbytes)
        proto.ClearField("raw_data")
        return proto


def attach(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Give the ONNX file at ``path``, whose weights are inputs, their values.

    Every graph input that ``weights`` names becomes an initializer in the external data file. A Transpose of a weight
    is carried out here: the quantizers only see a product with a constant matrix.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    inputs = [entry for entry in graph.input if entry.name not in weights]
    names = [entry.name for entry in graph.input if entry.name in weights]
    nodes, turned = [], {name: [] for name in names}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in turned:
            turned[node.input[0]].append(node)
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    with contextlib.closing(Data(path)) as data:
        for name in names:
            if name in read or not turned[name]:
                graph.initializer.append(data.add(name, weights[name]))
            for node in turned[name]:
                order = list(helper.get_node_attr_value(node, "perm"))
                graph.initializer.append(data.add(node.output[0], weights[name].permute(order)))
    for field, kept in ((graph.input, inputs), (graph.node, nodes)):
        del field[:]
        field.extend(kept)
    onnx.save_model(model, path)
