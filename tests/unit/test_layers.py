"""The house stands as drawn: who may import whom, by reading imports; and the digest of a stage's code follows them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from workflow.tradeoff.run import digest

PACKAGE = Path(digest.__file__).parents[1]
PREFIX = "workflow.tradeoff."
STAGES = ("fetch", "prepare", "measure", "evaluate", "summarize", "decide", "claims", "serve", "report")
ROOMS = (*STAGES, "engines", "run")
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


def imports(module: str) -> set[str]:
    """Modules of the package that a module names in an import, anywhere in its text, below the package's name."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            found.add(node.module)
    below = {name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX)}
    return {name for name in below if name in MODULES} - {module}


def room(module: str) -> str:
    """The folder that a module lies in; ``ground`` for those that all stand on."""
    return module.split(".")[0] if (PACKAGE / module.split(".")[0]).is_dir() else "ground"


def test_every_folder_is_a_room():
    assert {room(module) for module in MODULES} == {*ROOMS, "ground"}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_imported_by_none_but_those_above(name):
    """What two stages need lies below both: the ground, ``run`` and ``engines`` are all that a stage may import."""
    allowed = {"ground": {"ground"}, "run": {"run", "ground"}, "engines": {"engines", "ground"}}
    for module in MODULES:
        own = room(module)
        may = allowed.get(own, {own, "run", "engines", "ground"})
        assert name in may or name not in {room(other) for other in imports(module)}, f"{module} imports from {name}"


def test_only_what_runs_or_prepares_models_imports_engines():
    users = {room(module) for module in MODULES if "engines" in {room(other) for other in imports(module)}}
    assert users <= {"engines", "prepare", "measure", "evaluate"}


def test_no_circle():
    graph = {module: imports(module) for module in MODULES}
    while free := [module for module, below in graph.items() if not below & graph.keys()]:
        for module in free:
            del graph[module]
    assert not graph, f"these import each other: {sorted(graph)}"


def defined(module: str) -> set[str]:
    """Names that a module gives to others: what its text binds outside functions and classes, and modules below it."""
    found, open_ = set(), [ast.parse(MODULES[module].read_text())]
    while open_:
        for node in ast.iter_child_nodes(open_.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            open_.append(node)
    return found | {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == module}


def test_every_name_that_is_imported_is_there():
    """A name that moved is found in milliseconds, not by the one command that needs it."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            below = (getattr(node, "module", None) or "").removeprefix(PREFIX)
            if isinstance(node, ast.ImportFrom) and below in MODULES:
                missing = {alias.name for alias in node.names} - defined(below)
                assert not missing, f"{module} imports {missing} from {below}"


def test_every_stage_is_a_command():
    for stage in STAGES:
        assert f"{stage}.__main__" in MODULES, stage


def test_the_digest_reaches_indirect_imports():
    assert {"files", "errors", "engines.base", "variants", "measure.sample"} <= names("measure")


def test_a_statistic_measures_nothing_again():
    assert "stats" not in names("measure") and "stats" in names("summarize")


def test_the_digest_of_a_stage_leaves_engines_out_that_it_does_not_name():
    assert not {"engines.hf", "engines.onnx", "engines.graph"} & names("measure")


def names(*modules):
    return {name.removeprefix(PREFIX) for name in digest.reached(*modules)}


def test_two_modules_have_two_digests_and_one_module_one():
    assert digest.code("measure") == digest.code("measure") != digest.code("files")


def test_stages_after_measuring_start_without_torch():
    stages = ("summarize.__main__", "decide.__main__", "report.__main__", "report.figures", "claims.__main__")
    for stage in stages:
        heavy = "{'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
        script = f"import sys, importlib; importlib.import_module('{PREFIX}{stage}'); sys.exit(bool({heavy}))"
        assert subprocess.run([sys.executable, "-c", script]).returncode == 0, stage
