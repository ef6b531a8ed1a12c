"""How transformers runs AutoRound's files: by which kernels, in which types.

Its layer for the CPU unpacks a matrix at every product, times its float16 scales, and multiplies in the type of what
comes in. Loaded in float32 AutoRound would cast the whole model to float16, the angles of positions among it; so it is
loaded as it is stored, and what is no packed matrix is widened afterwards.
"""

import importlib
import logging
from collections.abc import Sequence

import torch
from torch import nn

from workflow.tradeoff.engines.matrices import Matrix
from workflow.tradeoff.errors import CellFailure

STORED = torch.float16
BESIDE = ("qzeros", "scales")


def imported(name: str = "auto_round.inference.convert_model"):
    """A module of the package auto-round, quiet; CellFailure where it is not installed."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "auto_round":
            raise
        words = "the package auto-round is not installed here: `make env` brings it"
        raise CellFailure("unsupported", words) from error
    logging.getLogger("autoround").setLevel(logging.ERROR)
    return module


def config(device: str):
    """transformers' AutoRoundConfig: torch's own operations on the CPU, on a GPU the best kernel that is installed."""
    imported()
    kind = importlib.import_module("transformers").AutoRoundConfig
    return kind(backend="torch" if device == "cpu" else "auto")


def widen(network: nn.Module, dtype: torch.dtype) -> None:
    """Turn the parameters, which are no packed matrices, to ``dtype``."""
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def proof(network: nn.Module, found: Sequence[Matrix]) -> dict:
    """Which of AutoRound's kernels run, and bits of a weight: the mean over ``found``, every matrix of a step, what
    lies beside packed integers in.
    """
    layers = [dict(module.named_buffers(recurse=False)) for module in network.modules()]
    beside = sum(part.nbytes for held in layers if "qweight" in held for name, part in held.items() if name in BESIDE)
    bits = sum(matrix.weights * matrix.bits for matrix in found) + 8 * beside
    bits_per_weight = bits / sum(matrix.weights for matrix in found)
    kernels = sorted(network.hf_quantizer.used_backends)
    said = f"AutoRound's kernels: {', '.join(kernels)}; {bits_per_weight:.1f} bits a weight, the head among them"
    return {"kernels": kernels, "bits_per_weight": bits_per_weight, "remarks": [said]}
