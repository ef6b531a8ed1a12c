"""Make a lower-precision ONNX file of an exported one, by ONNX Runtime's own quantizers.

    python -m workflow.tradeoff.prepare.quantize --input results/demo/onnx/M/fp32-kv --precision int8 \\
        --output results/demo/onnx/M/int8-kv

int8: dynamic, QInt8 weights per tensor, activations quantized as they come (what the study did).
int8w, int4: weight-only, MatMulNBits, blocks of 32 along the input dimension, symmetric.

The weights lie beside the file (``external``), and the quantizers read one at a time, when its turn comes.
"""

import contextlib
import logging
from pathlib import Path
from unittest import mock

import onnx
from onnx.external_data_helper import load_external_data_for_model
from onnxruntime.quantization import QuantFormat, QuantType, onnx_quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata
from onnxruntime.quantization.registry import IntegerOpsRegistry

from workflow.tradeoff import errors, files
from workflow.tradeoff.engines.onnx_graph import graph_proof

BITS = {"int8": 8, "int8w": 8, "int4": 4}
LARGE = 1_900_000_000  # bytes beyond which a protobuf cannot hold the weights, with room for the graph
BLOCK = 32
# int8 products with float32 accumulation of blocks: MatMulNBits' fastest setting on CPUs and what llama.cpp does
ACCURACY_LEVEL = 4


def dynamic_int8(source: Path, target: Path, per_channel: bool, reduce_range: bool) -> None:
    """Dynamic INT8: MatMul becomes DynamicQuantizeLinear and MatMulInteger; Gemm is turned into MatMul first.

    The same as ONNX Runtime's ``quantize_dynamic``, which infers shapes from copies of the whole model.
    """
    with (
        contextlib.chdir(source.parent),
        mock.patch.object(onnx_quantizer, "save_and_reload_model_with_shape_infer", _infer_shapes),
    ):
        quantizer = onnx_quantizer.ONNXQuantizer(
            _infer_shapes(onnx.load(source.name, load_external_data=False)),
            per_channel,
            reduce_range,
            QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(IntegerOpsRegistry),
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
    _save(quantizer.model, source, target)


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its values, and the mark by which ONNX Runtime knows them: no weight is read."""
    inferred = onnx.shape_inference.infer_shapes(model)
    add_infer_metadata(inferred)
    return inferred


def weight_only(source: Path, target: Path, bits: int) -> None:
    """Weight-only: every MatMul with a constant matrix, and every Gemm, becomes MatMulNBits with ``bits`` bits."""
    model = ONNXModel(onnx.load(source, load_external_data=False))
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=ACCURACY_LEVEL,
        quant_format=QuantFormat.QOperator,
        bits=bits,
    )
    with contextlib.chdir(source.parent):
        model.replace_gemm_with_matmul()  # the quantizer passes Gemm by, and GPT-2's layers are Gemm
        quantizer = MatMulNBitsQuantizer(model.model, algo_config=config)
        quantizer.process()
    _save(quantizer.model, source, target)


def _save(model: ONNXModel, source: Path, target: Path) -> None:
    """Write a quantized model; what it left in float32 still lies beside ``source``."""
    load_external_data_for_model(model.model, str(source.parent))
    model.save_model_to_file(str(target), use_external_data_format=_large(source))


def _large(source: Path) -> bool:
    return sum(path.stat().st_size for path in source.parent.iterdir()) > LARGE


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of the float32 export")
    parser.add_argument("--precision", choices=BITS, required=True)
    parser.add_argument("--per-channel", action="store_true", help="int8: one scale per output channel")
    parser.add_argument("--reduce-range", action="store_true", help="int8: 7-bit weights, for CPUs without VNNI")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)
    manifest = files.read_manifest(args.input)
    source = args.input / "model.onnx"
    files.check_disk(args.output, manifest_bytes(manifest), f"quantizing {args.input}")
    with files.atomic_folder(args.output) as folder:
        target = folder / "model.onnx"
        if args.precision == "int8":
            dynamic_int8(source, target, args.per_channel, args.reduce_range)
        else:
            weight_only(source, target, BITS[args.precision])
        proof = graph_proof(target, BITS[args.precision])
        print({key: proof[key] for key in ("weight_bytes", "quantized_fraction")})
        files.write_manifest(
            folder,
            source={
                "quantizer": "onnxruntime",
                "precision": args.precision,
                "per_channel": args.per_channel,
                "reduce_range": args.reduce_range,
            },
            made_from=manifest["digest"],
            quantized_fraction=proof["quantized_fraction"],
        )


def manifest_bytes(manifest: dict) -> int:
    return sum(entry["bytes"] for entry in manifest["files"].values())


if __name__ == "__main__":
    errors.run(main)
