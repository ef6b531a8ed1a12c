"""The engines. A new one is a new file here and its name in a variant."""

import importlib
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> Engine:
    """Load ``artifact`` (the folder that the variant runs) on ``device`` with ``threads`` CPU threads.

    model: the safetensors folder of the same model (config and tokenizer).
    Raises CellFailure when the variant cannot run there, or its artifact could not be made.
    """
    if (artifact / "manifest.json").is_file():
        files.made(artifact)
    if device not in variant.devices:
        raise CellFailure("unsupported", f"{variant.name} runs on {' or '.join(variant.devices)}, not on {device}")
    return _module(variant).load(variant, artifact, model, device, threads)


def warm(variant: Variant, artifact: Path) -> None:
    """Import what processes that are forked off would import to load ``artifact``, for any time.

    It has no native code but torch's, which might not run on this machine and take the importing process along.
    """
    if variant.engine == "hf":
        _module(variant).warm(artifact)


def passed(variant: Variant, artifact: Path) -> None:
    """A process has loaded and run ``artifact``: for those that follow, import the rest and leave checks out."""
    module = _module(variant)
    if hasattr(module, "passed"):
        module.passed(variant, artifact)


def _module(variant: Variant):
    return importlib.import_module(f"workflow.tradeoff.engines.{variant.engine}")
