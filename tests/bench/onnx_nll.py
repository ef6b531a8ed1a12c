"""An INT8 ONNX file under the ONNX Runtime that runs this: mean NLL in several ways, and its kernels against the sums.

    python onnx_nll.py windows.npy FILE.onnx [--out ways.json]

Imports nothing of the product, so that another environment can run it. windows.npy: (W, T) token ids; all but the first
of each are scored. Ways: ``all`` (every optimization of the graph) and ``none``, windows alone or eight at once, since
dynamic quantization takes one scale of activations for all that stands in a tensor.
"""

import argparse
import json

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WAYS = {"all, 8 windows": ("all", 8), "all, 1 window": ("all", 1), "none, 1 window": ("none", 1)}
ROWS = 255  # tokens of the kernels' inputs


def options(level: str) -> ort.SessionOptions:
    found = ort.SessionOptions()
    found.intra_op_num_threads = 2
    every = ort.GraphOptimizationLevel
    found.graph_optimization_level = every.ORT_ENABLE_ALL if level == "all" else every.ORT_DISABLE_ALL
    return found


def nll(path: str, windows: np.ndarray, level: str, batch: int) -> np.ndarray:
    """NLL of each scored token (W, T - 1), float64 sums of float32 logits, in nats."""
    session = ort.InferenceSession(path, options(level), providers=["CPUExecutionProvider"])
    inputs = {entry.name: entry for entry in session.get_inputs()}
    found = []
    for start in range(0, len(windows), batch):
        part = windows[start : start + batch]
        ids = part[:, :-1].astype(np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        given = {name: value for name, value in given.items() if name in inputs}
        for name, entry in inputs.items():
            if name not in given:  # an empty cache
                given[name] = np.zeros((len(ids), entry.shape[1], 0, entry.shape[3]), np.float32)
        logits = session.run(["logits"], given)[0].astype(np.float64)
        peak = logits.max(-1)
        total = peak + np.log(np.exp(logits - peak[..., None]).sum(-1))
        found.append(total - np.take_along_axis(logits, part[:, 1:, None].astype(np.int64), -1)[..., 0])
    return np.concatenate(found)


def wrong_sums(path: str) -> dict[str, int]:
    """Of each shape of MatMulInteger in a file: how many of its sums are not the exact ones, with its own weights."""
    graph = onnx.load(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, int] = {}
    random = np.random.default_rng(0)
    for node in graph.node:
        if node.op_type != "MatMulInteger" or node.input[1] not in weights:
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        zero = numpy_helper.to_array(weights[node.input[3]]) if len(node.input) > 3 else np.zeros((), weight.dtype)
        shape = f"{weight.shape[0]} x {weight.shape[1]} {weight.dtype}"
        if shape in found:
            continue
        rows = random.integers(0, 256, (ROWS, weight.shape[0]), dtype=np.uint8)
        offset = np.array(117, np.uint8)
        kinds = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}
        single = helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b", "c", "d"], ["y"])],
            "one",
            [helper.make_tensor_value_info("a", TensorProto.UINT8, rows.shape)],
            [helper.make_tensor_value_info("y", TensorProto.INT32, (ROWS, weight.shape[1]))],
            [numpy_helper.from_array(weight, "b"), numpy_helper.from_array(offset, "c"),
             helper.make_tensor("d", kinds[zero.dtype], zero.shape, zero.reshape(-1).tolist())],
        )  # fmt: skip
        model = helper.make_model(single, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        session = ort.InferenceSession(model.SerializeToString(), options("all"), providers=["CPUExecutionProvider"])
        # float64 holds sums of this size exactly, and multiplies matrices fast
        exact = (rows.astype(np.float64) - 117) @ (weight.astype(np.float64) - zero.astype(np.float64))
        found[shape] = int((session.run(None, {"a": rows})[0] != exact).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("file")
    parser.add_argument("--label", required=True, help="what the file is, in the table")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    windows, found = np.load(args.windows), {}
    for name, (level, batch) in WAYS.items():
        values = nll(args.file, windows, level, batch)
        found[name] = values.reshape(-1).tolist()
        print(args.label, ort.__version__, name, values.mean(), flush=True)
    said = {"file": args.label, "onnxruntime": ort.__version__, "nll": found, "wrong_sums": wrong_sums(args.file)}
    print(said["wrong_sums"], flush=True)
    with open(args.out, "w") as file:
        json.dump(said, file)


if __name__ == "__main__":
    main()
