"""A digest of the code that a stage runs, so that editing it reruns the stage and nothing else does."""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGE = "workflow.tradeoff"
FOLDER = Path(__file__).parents[1]


@lru_cache
def code(*modules: str) -> str:
    """SHA-256 (first 16 hex digits) over the given modules and every module of the package that they import.

    modules: names below the package: a stage, such as ``measure``, or a module, such as ``engines.hf``.
    """
    names = reached(*modules)
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode() + _source(name))
    return digest.hexdigest()[:16]


def reached(*modules: str) -> set[str]:
    """Full names of the modules that ``code`` hashes."""
    names: set[str] = set()
    for module in modules:
        stage = f"{PACKAGE}.{module}.__main__"
        _reach(stage if _path(stage) else f"{PACKAGE}.{module}", names)
    return names


def _path(name: str) -> Path | None:
    path = FOLDER.joinpath(*name.removeprefix(PACKAGE).strip(".").split("."))
    if name == PACKAGE or path.is_dir():
        path = path / "__init__"
    path = path.with_name(path.name + ".py")
    return path if path.is_file() else None


def _reach(name: str, names: set[str]) -> None:
    if name in names:
        return
    if _path(name) is None:
        raise ValueError(f"no module {name}")
    names.add(name)
    for imported in _imports(name):
        _reach(imported, names)


@lru_cache
def _source(name: str) -> bytes:
    return _path(name).read_bytes()


@lru_cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules of the package that a module imports, anywhere in its text, with the packages above them.

    ``"package.module:function"``, by which a process of its own is started, counts as an import.
    """
    found = set()
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0])
    inside = {entry for entry in found if entry.startswith(f"{PACKAGE}.") and _path(entry)}
    parents = {entry.rsplit(".", 1)[0] for entry in inside} - {PACKAGE}
    return tuple(sorted(inside | parents))
