"""What a measurement says of the bytes it loaded, and the bytes that it refuses before a process starts."""

import json
import shutil

import pytest

from workflow.tradeoff import files
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.measure import __main__ as stage

NUMBERS = ("warmup", "pairs", "turns", "prompt-tokens", "new-tokens", "study-runs", "threads")
NUMBERS += ("precision", "budget-s", "lost-share")


class Study:
    """Folders as the workflow makes them; ``run`` measures onnx-int8-kv against onnx-fp32-kv without any process."""

    def __init__(self, root):
        self.root = root
        self.model = self.make("model", {"model.safetensors": b"weights", "tokenizer.json": b"tokens"})
        self.fp32 = self.make("fp32-kv", {"model.onnx": b"float graph"}, made_from=self.digest("model"))
        self.int8 = self.make(
            "int8-kv", {"model.onnx": b"small graph"}, made_from=self.digest("fp32-kv"), model=self.digest("model")
        )

    def make(self, name, content, **facts):
        folder = self.root / name
        folder.mkdir(parents=True)
        for file, data in content.items():
            (folder / file).write_bytes(data)
        files.write_manifest(folder, source={}, **facts)
        return folder

    def digest(self, name):
        return json.loads((self.root / name / "manifest.json").read_text())["digest"]

    def run(self, *more):
        output = self.root / "speed.json"
        flags = ["--study", "s", "--model", "m", "--variant", "onnx-int8-kv", "--baseline", "onnx-fp32-kv"]
        flags += ["--artifact", str(self.int8), "--baseline-artifact", str(self.fp32)]
        flags += ["--model-folder", str(self.model), "--pairing", "auto", "--device", "cpu"]
        flags += ["--output", str(output), *more]
        for name in NUMBERS:
            flags += [f"--{name}", "1"]
        stage.main(flags)
        return json.loads(output.read_text())


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "measure", lambda args: {})
    return Study(tmp_path)


def test_the_json_names_the_bytes_of_the_cell_its_model_and_its_baseline(study):
    names = {"artifact": "int8-kv", "model": "model", "baseline": "fp32-kv"}
    assert study.run()["digests"] == {role: study.digest(name) for role, name in names.items()}


def test_a_cell_that_fails_names_its_bytes_too(study, monkeypatch):
    def fails(args):
        raise CellFailure("out_of_memory", "planted")

    monkeypatch.setattr(stage, "measure", fails)
    found = study.run()
    assert found["status"] == "out_of_memory" and found["digests"]["artifact"] == study.digest("int8-kv")


def float_file(study):
    shutil.copy(study.fp32 / "model.onnx", study.int8 / "model.onnx")


def other_weights(study):
    (study.model / "model.safetensors").write_bytes(b"strange")


def swapped_tokenizer(study):
    (study.model / "tokenizer.json").write_bytes(b"other!")


def other_baseline(study):
    (study.fp32 / "model.onnx").write_bytes(b"other graph")


def signed_model(study):
    other_weights(study)
    files.write_manifest(study.model, source={})


def edited_manifest(study):
    float_file(study)
    path = study.int8 / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["model.onnx"]["sha256"] = files.sha256(study.int8 / "model.onnx")
    path.write_text(json.dumps(manifest))


def gone(study):
    (study.int8 / "manifest.json").unlink()


CHANGED = r"was changed after it was made: its sha256 is [0-9a-f]{12}, and manifest.json has [0-9a-f]{12}: delete"


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (float_file, rf"int8-kv/model\.onnx {CHANGED}"),
        (other_weights, rf"model/model\.safetensors {CHANGED}"),
        (swapped_tokenizer, rf"model/tokenizer\.json {CHANGED}"),
        (other_baseline, rf"fp32-kv/model\.onnx {CHANGED}"),
        (signed_model, r"int8-kv was made of the model [0-9a-f]{12}, and .*model is [0-9a-f]{12}: delete"),
        (edited_manifest, r"int8-kv/manifest\.json was edited: .* is [0-9a-f]{12}, and it says [0-9a-f]{12}"),
        (gone, r"int8-kv has no manifest\.json"),
    ],
)
def test_a_plant_is_one_line_and_no_figure(study, plant, words):
    plant(study)
    with pytest.raises(UserError, match=words) as refused:
        study.run()
    assert "\n" not in str(refused.value) and not (study.root / "speed.json").exists()


def test_a_file_changed_while_it_is_timed_is_one_line_and_no_figure(study, monkeypatch):
    monkeypatch.setattr(stage, "measure", lambda args: other_baseline(study) or {})
    with pytest.raises(UserError, match=r"fp32-kv/model\.onnx was changed while it was in use"):
        study.run()
    assert not (study.root / "speed.json").exists()
