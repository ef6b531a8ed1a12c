"""A checkpoint is what its index, or its one file, says; what lies beside is not read, and said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.unit.fetch.fetching import refused
from workflow.tradeoff.fetch import models as fetch

IDS = torch.arange(24)[None]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny") / "llama", "llama")


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits


def split(plain: Path, folder: Path, pattern: str = "model-{:05d}-of-00002.safetensors", binary: bool = False) -> Path:
    """``plain`` in two shards of the names that ``pattern`` gives, with their index."""
    shutil.copytree(plain, folder)
    (folder / "model.safetensors").unlink()
    state = load_file(plain / "model.safetensors")
    placed = {}
    for index in (0, 1):
        part, name = dict(list(state.items())[index::2]), pattern.format(index + 1)
        (folder / name).parent.mkdir(exist_ok=True)
        if binary:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, {"format": "pt"})
        placed |= dict.fromkeys(part, name)
    stem = "pytorch_model.bin" if binary else "model.safetensors"
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def source(folder: Path, **more) -> dict:
    return {"source": "local", "path": str(folder), **more}


NAMES = [
    "model-{:05d}-of-00002.safetensors", "model.safetensors-{:05d}-of-00002.safetensors",
    "consolidated-{}.safetensors", "weights/part{}.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("pattern", NAMES)
def test_the_index_alone_says_which_files(pattern, dtype, plain, tmp_path):
    folder = split(plain, tmp_path / "model", pattern)
    # of an earlier export, with a name that looks as if it belonged to this one
    zeros = {name: torch.zeros_like(value) for name, value in load_file(plain / "model.safetensors").items()}
    save_file(zeros, folder / "model-00003-of-00003.safetensors", {"format": "pt"})
    manifest = fetch.fetch_model("tiny", source(folder, dtype=dtype), tmp_path / "out")
    difference = (logits(tmp_path / "out") - logits(plain)).abs().max()
    assert difference == 0 if dtype != "bfloat16" else difference < 0.02
    assert manifest["left_out"] == ["model-00003-of-00003.safetensors"]
    assert "model-00003-of-00003.safetensors" not in manifest["files"]


def test_the_index_of_pytorch_files_alone_says_which(plain, tmp_path):
    folder = split(plain, tmp_path / "model", "part{}.bin", binary=True)
    torch.save({"model.norm.weight": torch.zeros(64)}, folder / "pytorch_model-00003-of-00003.bin")
    fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(plain))


def test_a_tensor_in_a_file_that_the_index_does_not_place_there_is_not_read(plain, tmp_path):
    folder = split(plain, tmp_path / "model")
    first, second = sorted(folder.glob("model-*.safetensors"))
    stray = {name: torch.zeros_like(value) for name, value in load_file(first).items()}
    save_file(load_file(second) | stray, second, {"format": "pt"})
    fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(plain))


def test_a_tensor_that_the_config_has_no_place_for_is_said(plain, tmp_path, capsys):
    folder = shutil.copytree(plain, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    save_file(state | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, folder / "model.safetensors")
    manifest = fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert manifest["unread"] == ["model.layers.0.self_attn.q_proj.bias"]
    assert "q_proj.bias of its tensors are not read" in capsys.readouterr().err
    assert torch.equal(logits(tmp_path / "out"), logits(plain))


def test_one_file_goes_before_an_index(plain, tmp_path):
    folder = split(plain, tmp_path / "model")
    shutil.copy(plain / "model.safetensors", folder)
    manifest = fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert [name for name in manifest["files"] if name.endswith("safetensors")] == ["model.safetensors"]


def test_an_adapter_beside_a_model_is_said(plain, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")
    manifest = fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert manifest["left_out"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert "adapter_config.json, adapter_model.safetensors lie beside the model" in capsys.readouterr().err
    (folder / "config.json").unlink()
    refused("model", source(folder), tmp_path, "an adapter and no model", "merge")


def test_refusals(plain, tmp_path):
    folder = split(plain, tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    first, second = sorted(folder.glob("model-*.safetensors"))
    for text in ("{", "[]", "{}", json.dumps({"weight_map": {}}), json.dumps({"weight_map": ["a"]})):
        index.write_text(text)
        refused("model", source(folder), tmp_path, "model.safetensors.index.json", "copy it again")
    for name in ("/etc/a.safetensors", "../a.safetensors", "a.gguf"):
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        refused("model", source(folder), tmp_path, name, "correct it")
    placed = good["weight_map"] | {"model.extra": first.name}
    index.write_text(json.dumps({"weight_map": placed}))
    refused("model", source(folder), tmp_path, first.name, "lacks model.extra")
    index.write_text(json.dumps(good))
    second.rename(folder / "elsewhere.safetensors")
    refused("model", source(folder), tmp_path, second.name, "not whole")
    index.unlink()
    refused("model", source(folder), tmp_path, "no model.safetensors", "it has elsewhere.safetensors")
