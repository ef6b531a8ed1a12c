"""Build the float16 decoder that ONNX Runtime runs fastest on a GPU, from a model's weights.

    python -m workflow.tradeoff.prepare.fuse --model-folder results/t4/models/M --output results/t4/onnx/M/fp16-kv

An exporter writes the operators of torch; ONNX Runtime's own fused ones (GroupQueryAttention with past and present in
one buffer, SkipLayerNormalization) are what its generation library runs on. They leave a few launches a layer, keep
reductions in float32 (an export that is merely converted squares Llama's activations in float16, where they overflow),
and have shapes that do not change from token to token, so that ONNX Runtime can replay them as a CUDA graph.
"""

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from transformers import AutoConfig, AutoModelForCausalLM

from workflow.tradeoff import architecture, errors, files
from workflow.tradeoff.engines import decoder, linear
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import external

OPSET, MICROSOFT = 18, "com.microsoft"
IR_VERSION = 9  # read by every ONNX Runtime since 1.15
ELEMENT = {torch.float16: TensorProto.FLOAT16, torch.float32: TensorProto.FLOAT}


class Graph:
    """Nodes in order, and weights written straight to the external data file, so that no protobuf holds them."""

    def __init__(self, path: Path):
        self.path = path
        self.data = external.Data(path)
        self.nodes: list = []
        self.weights: list = []

    def node(self, kind: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes) -> str:
        outputs = [outputs] if isinstance(outputs, str) else outputs
        name = f"{outputs[0]}/{kind}"
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0]

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        """Store a tensor under ``name``."""
        self.weights.append(self.data.add(name, tensor))
        return name

    def product(self, x: str, weight: linear.Dense, name: str) -> str:
        """x @ weight.T, without the bias."""
        return self.node(
            "MatMul", [x, self.weight(f"{name}.weight", weight.weight.t().contiguous())], f"{name}/product"
        )

    def biased(self, x: str, weight: linear.Dense, name: str) -> str:
        x = self.product(x, weight, name)
        if weight.bias is None:
            return x
        return self.node("Add", [x, self.weight(f"{name}.bias", weight.bias)], f"{name}/biased")

    def save(self, inputs: list, outputs: list) -> None:
        self.data.close()
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), self.path)


def build(weights: decoder.Decoder, context: int, path: Path) -> None:
    """Write ``path`` and its external data.

    Inputs: input_ids (B, T), GPT-2's position_ids (B, T), seqlens_k (B) int32 (length in all, less one),
    total_sequence_length (1) int32, past_key_values.{i}.key and .value (B, KV heads, P, width).
    Outputs: logits (B, T, vocabulary), present.{i}.key and .value, which may be the same buffers as the past.
    """
    shape, element = weights.shape, ELEMENT[weights.dtype]
    graph = Graph(path)
    vocabulary = weights.embedding.shape[0]
    x = graph.node("Gather", [graph.weight("embedding", weights.embedding), "input_ids"], "embedded")
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    if weights.positions is not None:
        inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "length"]))
        table = graph.weight("positions", weights.positions)
        x = graph.node("Add", [x, graph.node("Gather", [table, "position_ids"], "placed")], "begun")
    inputs.append(helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]))
    inputs.append(helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [1]))
    tables = []
    if weights.rotary is not None:
        half = shape.width // 2
        cosine, sine = weights.tables(context)
        tables = [
            graph.weight("cosines", cosine[:, :half].to(weights.dtype).contiguous()),
            graph.weight("sines", sine[:, :half].to(weights.dtype).contiguous()),
        ]
    outputs = [helper.make_tensor_value_info("logits", element, ["batch", "length", vocabulary])]
    past = ["batch", shape.kv_heads, "past", shape.width]
    added, bias = None, None  # what the next normalization adds to x first
    for index, layer in enumerate(weights.layers):
        at = f"layer.{index}"
        for part in ("key", "value"):
            inputs.append(helper.make_tensor_value_info(f"past_key_values.{index}.{part}", element, past))
            outputs.append(
                helper.make_tensor_value_info(f"present.{index}.{part}", element, [*past[:2], "all", *past[3:]])
            )
        normal, x = normalize(graph, x, added, bias, layer.norm1, shape, f"{at}.norm1")
        qkv = graph.biased(normal, layer.qkv, f"{at}.qkv")
        cache = [f"past_key_values.{index}.key", f"past_key_values.{index}.value"]
        attended = graph.node(
            "GroupQueryAttention",
            [qkv, "", "", *cache, "seqlens_k", "total_sequence_length", *tables],
            [f"{at}/attended", f"present.{index}.key", f"present.{index}.value"],
            MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=int(bool(tables)),
            scale=shape.width**-0.5,
        )
        added, bias = graph.product(attended, layer.out, f"{at}.out"), layer.out.bias
        normal, x = normalize(graph, x, added, bias, layer.norm2, shape, f"{at}.norm2")
        added, bias = mlp(graph, normal, layer, shape, at), layer.down.bias
    normal, _ = normalize(graph, x, added, bias, weights.norm, shape, "norm")
    if weights.head.weight.data_ptr() == weights.embedding.data_ptr():
        # tied: the embedding read as the head, not a transposed copy of it
        graph.node("FusedMatMul", [normal, "embedding"], "logits", MICROSOFT, transB=1)
    else:
        head = graph.weight("head.weight", weights.head.weight.t().contiguous())
        graph.node("MatMul", [normal, head], "logits")
    graph.save(inputs, outputs)


def normalize(graph: Graph, x: str, added: str | None, bias, norm: decoder.Norm, shape, name: str) -> tuple[str, str]:
    """Add ``added`` and its bias to x, and normalize: (normalized, x after the addition)."""
    scale = graph.weight(f"{name}.weight", norm.weight)
    simple = norm.bias is None
    offset = [] if simple else [graph.weight(f"{name}.bias", norm.bias)]
    settings = {"epsilon": shape.eps}
    if added is None:
        kind = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
        return graph.node(kind, [x, scale, *offset], f"{name}/normal", axis=-1, **settings), x
    kind = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    last = [] if bias is None else [graph.weight(f"{name}.added.bias", bias)]
    outputs = [f"{name}/normal", "", "", f"{name}/sum"]
    graph.node(kind, [x, added, scale, *offset, *last], outputs, MICROSOFT, **settings)
    return outputs[0], outputs[3]


def mlp(graph: Graph, x: str, layer: decoder.Layer, shape, at: str) -> str:
    """The MLP without its last bias."""
    if shape.kind == "gpt2":
        inputs = [graph.product(x, layer.up, f"{at}.up"), graph.weight(f"{at}.up.bias", layer.up.bias)]
        hidden = graph.node("FastGelu", inputs, f"{at}/activated", MICROSOFT)
    else:
        both = graph.biased(x, layer.up, f"{at}.up")
        halves = [f"{at}/gate", f"{at}/up"]
        graph.node("Split", [both], halves, axis=-1, num_outputs=2)
        gate = graph.node("QuickGelu", halves[:1], f"{at}/silu", MICROSOFT, alpha=1.0)
        hidden = graph.node("Mul", [gate, halves[1]], f"{at}/activated")
    return graph.product(hidden, layer.down, f"{at}.down")


def fuse(model: Path, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the fused decoder of the model in folder ``model`` to ``path``; CellFailure for other architectures."""
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    with torch.no_grad():
        build(decoder.from_network(network), architecture.longest(network.config), path)


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    manifest = files.made(args.model_folder)
    config = AutoConfig.from_pretrained(args.model_folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in decoder.KNOWN:
        raise CellFailure("unsupported", f"this builder knows {' and '.join(decoder.KNOWN)}, not {config.model_type}")
    weights = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".safetensors"))
    files.check_disk(args.output, 2 * weights, f"fusing {args.model_folder.name}")
    with files.atomic_folder(args.output) as folder:
        fuse(args.model_folder, folder / "model.onnx")
        files.write_manifest(
            folder,
            source={"builder": "fuse", "opset": OPSET, "operators": "com.microsoft", "dtype": "float16"},
            made_from=manifest["digest"],
        )


if __name__ == "__main__":
    errors.run(main)
