"""Write a quantized ONNX model whose untouched weights still lie beside the file that it was made of."""

from pathlib import Path

from onnx.external_data_helper import load_external_data_for_model
from onnxruntime.quantization.onnx_model import ONNXModel

LARGE = 1_900_000_000  # bytes beyond which a protobuf cannot hold the weights, with room for the graph


def save(model: ONNXModel, source: Path, target: Path) -> None:
    """Write a quantized model; what it left in float32 still lies beside ``source``."""
    load_external_data_for_model(model.model, str(source.parent))
    model.save_model_to_file(str(target), use_external_data_format=_large(source))


def _large(source: Path) -> bool:
    return sum(path.stat().st_size for path in source.parent.iterdir()) > LARGE
