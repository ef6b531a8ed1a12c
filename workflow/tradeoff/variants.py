"""The variants: every way this workflow knows to run a model, and the artifact that each one runs.

A variant's name reads engine, precision, and what is special about its cache or its launch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    engine: module of ``workflow.tradeoff.engines`` that runs it.
    precision: of the linear weights: fp32, fp16, bf16, int8, nf4, fp4 or int4.
    bits: bits of a linear weight.
    artifact: ``model`` (the safetensors folder) or the ONNX folder's name.
    cache: whether past keys and values are kept; without, each token runs the whole sequence again.
    devices: where it runs.
    label: the word of the study for it, for its tables.
    options: what the engine needs beside.
    """

    name: str
    engine: str
    precision: str
    bits: int
    artifact: str
    cache: bool
    devices: tuple[str, ...]
    label: str
    options: tuple[tuple[str, object], ...] = ()

    @property
    def quantized(self) -> bool:
        return self.bits < 16

    def option(self, key, default=None):
        return dict(self.options).get(key, default)


BOTH = ("cpu", "cuda")
REFERENCE = "torch-fp16"  # the study's baseline


def _torch(name, precision, bits, label, devices=BOTH, engine="hf", **options):
    return Variant(name, engine, precision, bits, "model", True, devices, label, tuple(options.items()))


def _graph(name, precision, bits, label, **options):
    return _torch(name, precision, bits, label, devices=("cuda",), engine="graph", **options)


def _onnx(name, precision, bits, label, artifact=None, devices=BOTH, engine="onnx", **options):
    artifact = artifact or name.removeprefix("onnx-")
    cache = artifact.endswith("-kv")
    return Variant(name, engine, precision, bits, artifact, cache, devices, label, tuple(options.items()))


VARIANTS = {
    variant.name: variant
    for variant in (
        _torch("torch-fp32", "fp32", 32, "FP32"),
        _torch("torch-fp16", "fp16", 16, "FP16"),
        _torch("torch-bf16", "bf16", 16, "BF16"),
        _torch("bnb-int8", "int8", 8, "INT8", threshold=6.0),
        _torch("bnb-int8-t0", "int8", 8, "INT8 (threshold 0)", threshold=0.0),
        _torch("bnb-nf4", "nf4", 4, "NF4"),
        _torch("bnb-fp4", "fp4", 4, "FP4"),
        # the decode step compiled and replayed as a CUDA graph; source: the variant whose weights it starts from
        _graph("torch-fp16-graph", "fp16", 16, "FP16 (CUDA graph)", source="torch-fp16"),
        _graph("bnb-int8-t0-graph", "int8", 8, "INT8 (threshold 0, CUDA graph)", source="bnb-int8-t0"),
        _graph("bnb-nf4-graph", "nf4", 4, "NF4 (CUDA graph)", source="bnb-nf4"),
        _graph("int8-graph", "int8", 8, "INT8 weight-only (CUDA graph)", source="torch-fp16", weight_only=True),
        _graph("int4-graph", "int4", 4, "INT4 weight-only (CUDA graph)", source="torch-fp16", weight_only=True),
        _onnx("onnx-fp32", "fp32", 32, "ONNX FP32"),
        _onnx("onnx-int8", "int8", 8, "ONNX INT8"),
        _onnx("onnx-fp32-kv", "fp32", 32, "ONNX KV Cache"),
        _onnx("onnx-int8-kv", "int8", 8, "ONNX KV Cache INT8"),
        _onnx("onnx-fp16-kv", "fp16", 16, "ONNX KV Cache FP16", devices=("cuda",), engine="onnx_shared"),
        _onnx("onnx-int8w-kv", "int8", 8, "ONNX KV Cache INT8 weight-only"),
        _onnx("onnx-int4-kv", "int4", 4, "ONNX KV Cache INT4"),
        _onnx("onnx-int8-cpu", "int8", 8, "ONNX INT8 (CPU provider)", artifact="int8", provider="CPUExecutionProvider"),
    )
}
