"""What cannot be made is a failure on record, in the artifact's place; only a broken study stops the run."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.serving import counted_from, never_returns
from workflow.tradeoff import files
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import __main__ as prepare
from workflow.tradeoff.prepare import export
from workflow.tradeoff.run import hang


@pytest.fixture
def model(tmp_path):
    folder = tiny.build(tmp_path / "model", "llama", layers=1)
    files.write_manifest(folder, source={})
    return folder


def run(model, output, *more):
    flags = ["--model-folder", str(model), "--cache", "--threads", "1", *more, "--output", str(output)]
    prepare.main(["export", *flags])
    with pytest.raises(CellFailure) as failed:
        files.made(output)
    assert files.read_manifest(output)["files"] == {} and files.read_manifest(output)["source"] == {"step": "export"}
    return failed.value


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("unknown architecture\nadvice"), "error", "export: ValueError: unknown architecture (prepare/"),
        (NotImplementedError("no such layer"), "unsupported", "export: NotImplementedError: no such layer ("),
        (CellFailure("diverged", "7 nats off"), "diverged", "export: 7 nats off"),
        (MemoryError("Unable to allocate 8 GiB"), "out_of_memory", "bytes were available"),
        (AssertionError(), "error", "export: AssertionError: no message ("),
    ],
)
def test_whatever_is_raised_is_on_record(model, tmp_path, monkeypatch, capfd, error, status, reason):
    def broken(*_):
        raise error

    monkeypatch.setattr(export, "export", broken)
    failed = run(model, tmp_path / "onnx")
    assert failed.status == status and reason in failed.reason and "\n" not in failed.reason
    assert "Traceback" not in capfd.readouterr().err


def test_a_killed_step_is_on_record(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "export", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    failed = run(model, tmp_path / "onnx")
    assert failed.status == "out_of_memory" and "the process was killed" in failed.reason


def test_a_step_that_hangs_is_on_record(model, tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    monkeypatch.setattr(export, "export", lambda *_: begun.touch() or never_returns())
    monkeypatch.setattr(hang, "Wait", counted_from(begun))
    failed = run(model, tmp_path / "onnx", "--hung-after-s", "0.3")
    assert failed.status == "hung"
    assert failed.reason.startswith("export: the whole step: no progress for 0.3 s, in main (prepare/export.py, line ")
    assert f"delete {tmp_path / 'onnx'} and run again" in failed.reason
    assert {path.name for path in tmp_path.iterdir()} == {"model", "begun", "onnx"}


def test_weights_that_are_no_numbers_are_not_blamed_on_the_export(model, tmp_path):
    state = load_file(model / "model.safetensors")
    state["model.norm.weight"] = torch.full_like(state["model.norm.weight"], torch.nan)
    save_file(state, model / "model.safetensors", {"format": "pt"})
    files.write_manifest(model, source={})
    failed = run(model, tmp_path / "onnx")
    assert failed.status == "diverged" and "the checkpoint itself holds NaN" in failed.reason
    assert "model.norm.weight (64 of 64)" in failed.reason


def test_what_is_made_of_a_failure_has_its_reason(model, tmp_path):
    files.write_failure(tmp_path / "fp32-kv", CellFailure("unsupported", "export: no such layer"), {"step": "export"})
    flags = [
        "--input",
        str(tmp_path / "fp32-kv"),
        "--recipe",
        json.dumps({"quantizer": "dynamic", "bits": 8}),
        "--output",
        str(tmp_path / "int4-kv"),
    ]
    prepare.main(["quantize", *flags])
    with pytest.raises(CellFailure, match="unsupported: export: no such layer"):
        files.made(tmp_path / "int4-kv")


def test_a_file_that_was_changed_stops_the_run(model, tmp_path, capfd):
    (model / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        prepare.main(["export", "--model-folder", str(model), "--threads", "1", "--output", str(tmp_path / "onnx")])
    assert "delete" in capfd.readouterr().err.splitlines()[-1] and not (tmp_path / "onnx").exists()
