"""The digest of a stage's code follows its imports and nothing else."""

import subprocess
import sys

from workflow.tradeoff import digest

PREFIX = "workflow.tradeoff."


def names(*modules):
    return {name.removeprefix(PREFIX) for name in digest.reached(*modules)}


def test_measuring_and_evaluating_know_nothing_of_what_comes_after():
    later = {"summarize", "tables", "decide", "report", "figures", "style", "claims", "stats"}
    assert not names("measure", "sample", "evaluate", "engines.hf", "engines.onnx") & later


def test_engines_know_nothing_of_stages():
    stages = {"fetch", "export", "quantize", "measure", "sample", "evaluate", "summarize", "decide", "report"}
    assert not names("engines", "engines.hf", "engines.onnx", "engines.graph") & stages


def test_the_digest_reaches_indirect_imports():
    assert {"files", "errors", "engines.base", "variants"} <= names("sample")


def test_two_modules_have_two_digests_and_one_module_one():
    assert digest.code("measure") == digest.code("measure") != digest.code("files")


def test_stages_after_measuring_start_without_torch():
    for stage in ("summarize", "decide", "report", "figures", "claims"):
        heavy = "{'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
        script = f"import sys, importlib; importlib.import_module('{PREFIX}{stage}'); sys.exit(bool({heavy}))"
        assert subprocess.run([sys.executable, "-c", script]).returncode == 0, stage
