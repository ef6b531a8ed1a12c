"""ONNX Runtime's weight-only MatMulNBits: blocks of weights along the input dimension share a scale."""

import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
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
from workflow.tradeoff.prepare.gguf_mix import more_bits

# names that architectures give to a value projection, alone or fused with query and key, and to the way down
VALUE = r"v_proj|qkv_proj|c_attn|query_key_value|Wqkv|in_proj"
DOWN = r"down_proj|fc2|mlp/c_proj|dense_4h_to_h|fc_out|w2"
LAYER = re.compile(rf"/\w+\.(\d+)/(?:.*/)?(?:{VALUE}|{DOWN})/")


def quantize(source: Path, target: Path, recipe: Mapping) -> None:
    """Write the float32 file ``source`` as ``target``: every MatMul with a constant matrix, and every Gemm, becomes
    MatMulNBits. recipe: as ``workflow/schemas/variants.yaml`` describes it.
    """
    model = ONNXModel(onnx.load(source, load_external_data=False))
    with contextlib.chdir(source.parent):
        model.replace_gemm_with_matmul()  # the quantizer passes Gemm by, and GPT-2's layers are Gemm
        names = products(model)
        kept = wider(names, recipe.get("wider", "none"))
        if recipe.get("wider") == "mix" and len(kept) == 1:
            print(
                "wider: mix: no layer is known by the names of its matrices, so the head alone keeps 8 bits",
                file=sys.stderr,
            )
        if kept:
            narrow = [name for name in names if name not in kept]
            model = _quantized(model, {**recipe, "bits": 8, "algorithm": "rtn", "symmetric": True}, narrow)
        model = _quantized(model, recipe, [])
    _set_accuracy_level(model, recipe["accuracy_level"])
    onnx_file.save(model, source, target)


def products(model: ONNXModel) -> list[str]:
    """Names of the products with a constant matrix, in the order in which they run: the head is the last."""
    constant = {tensor.name for tensor in model.model.graph.initializer}
    return [node.name for node in model.model.graph.node if node.op_type == "MatMul" and node.input[1] in constant]


def wider(names: Sequence[str], which: str) -> set[str]:
    """Those of ``products`` that keep 8 bits: none, the head, or (mix) also the layers of llama.cpp's mixes named M."""
    if which == "none" or not names:
        return set()
    layers = {name: int(found[1]) for name in names[:-1] if which == "mix" and (found := LAYER.search(name))}
    count = max(layers.values(), default=-1) + 1
    return {names[-1], *(name for name, layer in layers.items() if more_bits(layer, count))}


def _quantized(model: ONNXModel, recipe: Mapping, without: Sequence[str]) -> ONNXModel:
    quantizer = MatMulNBitsQuantizer(
        model.model,
        block_size=recipe["block"],
        is_symmetric=recipe.get("symmetric", False),
        accuracy_level=recipe["accuracy_level"],
        nodes_to_exclude=list(without),
        algo_config=_algorithm(recipe),
    )
    quantizer.process()
    return ONNXModel(quantizer.model.model)  # some algorithms leave a class of their own around the file


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
