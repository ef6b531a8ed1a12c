"""ONNX Runtime's weight-only MatMulNBits: blocks of weights along the input dimension share a scale."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.onnx_model import ONNXModel

from workflow.tradeoff.prepare import onnx_file


def quantize(source: Path, target: Path, recipe: Mapping) -> None:
    """Write the float32 file ``source`` as ``target``: every MatMul with a constant matrix, and every Gemm, becomes
    MatMulNBits. recipe: as ``workflow/schemas/variants.yaml`` describes it.
    """
    model = ONNXModel(onnx.load(source, load_external_data=False))
    with contextlib.chdir(source.parent):
        model.replace_gemm_with_matmul()  # the quantizer passes Gemm by, and GPT-2's layers are Gemm
        quantizer = MatMulNBitsQuantizer(
            model.model,
            block_size=recipe["block"],
            is_symmetric=recipe.get("symmetric", False),
            accuracy_level=recipe["accuracy_level"],
            algo_config=_algorithm(recipe),
        )
        quantizer.process()
    made = ONNXModel(quantizer.model.model)  # some algorithms leave a class of their own around the file
    _set_accuracy_level(made, recipe["accuracy_level"])
    onnx_file.save(made, source, target)


def _algorithm(recipe: Mapping):
    if recipe["algorithm"] == "hqq":
        return HQQWeightOnlyQuantConfig(block_size=recipe["block"], bits=recipe["bits"])
    if recipe["algorithm"] == "k_quant":
        return KQuantWeightOnlyQuantConfig()
    return DefaultWeightOnlyQuantConfig(
        block_size=recipe["block"],
        is_symmetric=recipe["symmetric"],
        accuracy_level=recipe["accuracy_level"],
        quant_format=QuantFormat.QOperator,
        bits=recipe["bits"],
    )


def _set_accuracy_level(model: ONNXModel, level: int) -> None:
    """Give every MatMulNBits the level: not every algorithm's configuration takes one."""
    for node in model.model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("accuracy_level", level)])
