"""Files and folders that are already on this machine."""

from pathlib import Path

from workflow.tradeoff.errors import UserError


def file(path: str) -> Path:
    """``path`` as a file; UserError when it is not there."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"{path} is not a file{missing(found)}: correct `path`")
    return found


def model(path: str) -> Path:
    """``path`` as a model's folder or .gguf file; UserError when it is neither."""
    found = Path(path).expanduser()
    if found.is_file() and found.suffix == ".gguf":
        return found
    if not found.is_dir():
        raise UserError(f"{path} is not a model folder or a .gguf file{missing(found)}: correct `path`")
    return found


def missing(path: Path) -> str:
    """Where a path that does not exist stops existing, in words; empty when it exists."""
    if path.exists():
        return ""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    return f" (the folder {parent} has no {path.absolute().relative_to(parent).parts[0]})"
