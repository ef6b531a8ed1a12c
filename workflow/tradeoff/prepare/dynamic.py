"""ONNX Runtime's dynamic INT8: activations are quantized as they come (what the study did, with one scale a matrix)."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import onnx
from onnxruntime.quantization import QuantType, onnx_quantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata
from onnxruntime.quantization.registry import IntegerOpsRegistry

from workflow.tradeoff.prepare import onnx_file

SIGNED = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


def quantize(source: Path, target: Path, recipe: Mapping) -> None:
    """Write the float32 file ``source`` as ``target``: a MatMul becomes DynamicQuantizeLinear and
    MatMulInteger; Gemm is turned into MatMul first.

    The same as ONNX Runtime's ``quantize_dynamic``, which infers shapes from copies of the whole model.
    """
    with (
        contextlib.chdir(source.parent),
        mock.patch.object(onnx_quantizer, "save_and_reload_model_with_shape_infer", _infer_shapes),
    ):
        quantizer = onnx_quantizer.ONNXQuantizer(
            _infer_shapes(onnx.load(source.name, load_external_data=False)),
            recipe["per_channel"],
            recipe["reduce_range"],
            QuantizationMode.IntegerOps,
            static=False,
            weight_qType=SIGNED[recipe["weight_type"]],
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(IntegerOpsRegistry),
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
    onnx_file.save(quantizer.model, source, target)


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its values, and the mark by which ONNX Runtime knows them: no weight is read."""
    inferred = onnx.shape_inference.infer_shapes(model)
    add_infer_metadata(inferred)
    return inferred
