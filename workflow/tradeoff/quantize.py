"""Make a lower-precision ONNX file of an exported one, by ONNX Runtime's own quantizers.

    python -m workflow.tradeoff.quantize --input results/demo/onnx/M/fp32-kv --precision int8 \\
        --output results/demo/onnx/M/int8-kv

int8: dynamic, QInt8 weights per tensor, activations quantized as they come (what the study did).
int8w, int4: weight-only, MatMulNBits, blocks of 32 along the input dimension, symmetric.
"""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from workflow.tradeoff import errors, files
from workflow.tradeoff.engines.onnx_graph import graph_proof

BITS = {"int8": 8, "int8w": 8, "int4": 4}
LARGE = 1_900_000_000  # bytes beyond which a protobuf cannot hold the weights, with room for the graph
BLOCK = 32
# int8 products with float32 accumulation of blocks: MatMulNBits' fastest setting on CPUs and what llama.cpp does
ACCURACY_LEVEL = 4


def dynamic_int8(source: Path, target: Path, per_channel: bool, reduce_range: bool) -> None:
    """Dynamic INT8: MatMul becomes DynamicQuantizeLinear and MatMulInteger; Gemm is turned into MatMul first."""
    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=reduce_range,
        use_external_data_format=_large(source),
    )


def weight_only(source: Path, target: Path, bits: int) -> None:
    """Weight-only: every MatMul with a constant matrix, and every Gemm, becomes MatMulNBits with ``bits`` bits."""
    model = ONNXModel(onnx.load(source))
    model.replace_gemm_with_matmul()  # the quantizer passes Gemm by, and GPT-2's layers are Gemm
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=ACCURACY_LEVEL,
        quant_format=QuantFormat.QOperator,
        bits=bits,
    )
    quantizer = MatMulNBitsQuantizer(model.model, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=_large(source))


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
    files.check_disk(args.output, manifest_bytes(manifest) * 2, f"quantizing {args.input}")
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
