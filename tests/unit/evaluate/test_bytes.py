"""What an evaluation says of the bytes it loaded, and the bytes that it refuses before it loads them."""

import json
import shutil

import numpy as np
import pytest

from tests import tiny
from tests.scored import ROWS
from tests.unit.evaluate.stage import Fake, Stage
from workflow.tradeoff import engines, files
from workflow.tradeoff.errors import UserError

NAMES = ["windows-64"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tiny.build(tmp_path_factory.mktemp("model") / "llama", "llama")
    files.write_manifest(folder, source={})
    return folder


@pytest.fixture
def stage(llama, tmp_path, monkeypatch):
    """A stage on a copy of the model, with an engine that costs nothing."""
    monkeypatch.setattr(engines, "load", lambda *_: Fake())
    return Stage(shutil.copytree(llama, tmp_path / "model"), tmp_path)


def digests(stage, variant):
    return json.loads(stage.path(variant).read_text())["digests"]


def test_the_json_names_the_bytes_of_the_cell_of_its_arrays_and_of_its_baseline(stage):
    base, cell = (stage.run(variant, names=NAMES)["digests"] for variant in ("torch-fp32", "torch-bf16"))
    model, corpus = (json.loads(path.read_text())["digest"] for path in (stage.folder / "manifest.json", stage.corpus))
    for found in (base, cell):
        assert found["artifact"] == found["model"] == found["baseline"] == model and found["corpus"] == corpus
    for variant, found in (("torch-fp32", base), ("torch-bf16", cell)):
        assert found["scores"] == files.sha256(stage.root / "quality" / f"{variant}.npz")
    assert base["logprobs"] == files.sha256(stage.root / "quality" / "torch-fp32.logprobs.npz")
    assert cell["baseline_scores"] == base["scores"] and "logprobs" not in cell


def swap_tokenizer(stage):
    """Two letters of the vocabulary change places."""
    path = stage.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))


def swap_weights(stage):
    path = stage.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def swap_corpus(stage):
    path = stage.corpus
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"rows": content["rows"][1:]}))


def add_adapter(stage):
    (stage.folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (swap_tokenizer, r"tokenizer\.json (was changed after it was made|is not the file)"),
        (
            swap_weights,
            r"model\.safetensors was changed after it was made: its sha256 is [0-9a-f]{12}, .* [0-9a-f]{12}",
        ),
        (swap_corpus, r"corpus\.json was changed after it was fetched"),
        (add_adapter, r"adapter_config\.json is not in .*manifest\.json"),
    ],
)
def test_a_file_changed_after_it_was_made_is_one_line_and_no_figure(stage, plant, words):
    plant(stage)
    with pytest.raises(UserError, match=words):
        stage.run("torch-fp32", names=NAMES)
    assert not stage.path("torch-fp32").exists()


def test_a_file_changed_while_it_is_evaluated_is_one_line_and_no_figure(stage, monkeypatch):
    def load(*_):
        swap_weights(stage)
        return Fake()

    monkeypatch.setattr(engines, "load", load)
    with pytest.raises(UserError, match=r"model\.safetensors was changed while it was in use"):
        stage.run("torch-fp32", names=NAMES)
    assert not stage.path("torch-fp32").exists()


def test_a_baseline_of_another_model_or_corpus_or_run_is_refused(stage):
    stage.run("torch-fp32", names=NAMES)
    stage.write_corpus(ROWS[1:])
    with pytest.raises(UserError, match=r"evaluated with the corpus [0-9a-f]{12}, and this cell's is [0-9a-f]{12}"):
        stage.run("torch-bf16", names=NAMES)
    stage.write_corpus(ROWS)
    swap_tokenizer(stage)
    files.write_manifest(stage.folder, source={})
    with pytest.raises(UserError, match=r"evaluated with the model [0-9a-f]{12}, and this cell's is [0-9a-f]{12}"):
        stage.run("torch-bf16", names=NAMES)
    stage.run("torch-fp32", names=NAMES)
    path = stage.root / "quality" / "torch-fp32.npz"
    np.savez(path, **{name: array + 1 for name, array in stage.arrays("torch-fp32").items()})
    with pytest.raises(UserError, match=r"torch-fp32\.npz has the sha256 [0-9a-f]{12}, and the JSON beside it names"):
        stage.run("torch-bf16", names=NAMES)


def test_an_artifact_of_another_model_is_refused(stage, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.onnx").write_bytes(b"graph")
    files.write_manifest(other, source={}, made_from="a" * 64, model="b" * 64)
    with pytest.raises(UserError, match=r"other was made of the model bbbbbbbbbbbb, and .*model is [0-9a-f]{12}"):
        stage.run("torch-fp32", "--artifact", str(other), names=NAMES)
