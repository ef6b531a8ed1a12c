"""The Python that an engine's processes run in: this one, or that of an environment that its packages need.

Such an environment lies beside the Snakefile, ``.venv-{name}``, and is asked for where a process is started anew: on a
GPU. What is there is a reason of its own to run cells again (``state``).
"""

import sys
from importlib import metadata
from pathlib import Path

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant


def of(variant: Variant) -> str:
    """Path of the Python for ``variant``; CellFailure, with the command that makes it, where it is not there."""
    if not variant.environment:
        return sys.executable
    python = _python(variant)
    if not python.is_file():
        raise CellFailure(
            "unsupported",
            f"{variant.engine} runs in an environment of its own, and {python} is not there: make it by "
            f"`{command(variant)}`",
        )
    return str(python.absolute())


def command(variant: Variant) -> str:
    """The command that makes the environment."""
    return f"python envs/install.py {variant.environment} .venv-{variant.environment}"


def state(variant: Variant) -> str:
    """What of its environment decides what a cell gives: the engine's version, or that it is absent; empty for ours."""
    if not variant.environment:
        return ""
    if not _python(variant).is_file():
        return "absent"
    places = map(str, _python(variant).parents[1].glob("lib/python*/site-packages"))
    found = metadata.distributions(name=variant.engine, path=list(places))
    return next((part.version for part in found), "of its own")


def _python(variant: Variant) -> Path:
    return Path(f".venv-{variant.environment}") / "bin" / "python"
