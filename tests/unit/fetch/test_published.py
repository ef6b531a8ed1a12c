"""A published quantized checkpoint is brought in as it is, or one line says why not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests import scored, tiny
from workflow.tradeoff import engines, files
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.__main__ import main
from workflow.tradeoff.fetch.sources import byte_tokenizer
from workflow.tradeoff.variants import build


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model/ with its manifest, nf4/ as bitsandbytes saves it, and a corpus."""
    root = tmp_path_factory.mktemp("published")
    tiny.build(root / "model", "llama")
    files.write_manifest(root / "model", source={})
    quantize(root / "model", root / "nf4")
    scored.write_corpus(root / "corpus.json", tiny.TEXT.splitlines())
    return root


def quantize(model, target):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    given = {"quantization_config": config, "device_map": {"": "cpu"}, "dtype": torch.float32}
    network = AutoModelForCausalLM.from_pretrained(model, **given)
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors", "manifest.json"))
    network.save_pretrained(target)


def fetch(place, path, engine="hf", **keys):
    source = json.dumps({"source": "local", "path": str(path), **keys})
    shutil.rmtree(place / "out", ignore_errors=True)
    flags = ["--engine", engine, "--model-folder", str(place / "model"), "--corpus", str(place / "corpus.json")]
    main(["checkpoint", "--name", "own", "--source", source, *flags, "--output", str(place / "out")])
    return files.read_manifest(place / "out")


def test_the_bytes_that_were_published_are_the_bytes_that_run(place):
    made = fetch(place, place / "nf4")
    assert made["kind"] == "safetensors" and made["quantization"]["quant_method"] == "bitsandbytes"
    assert (place / "out/model.safetensors").read_bytes() == (place / "nf4/model.safetensors").read_bytes()
    assert made["made_from"] == files.read_manifest(place / "model")["digest"]


def test_it_scores_as_what_it_was_made_by(place):
    """The oracle quantizes the model itself, on loading."""
    fetch(place, place / "nf4")
    given = {"source": "local", "path": "nf4"}
    own = engines.load(build("own", {"engine": "hf", "checkpoint": given}), place / "out", place / "model", "cpu", 1)
    recipe = {"quantizer": "bitsandbytes", "bits": 4}
    oracle = build("oracle", {"engine": "hf", "recipe": recipe})
    expected = engines.load(oracle, place / "model", place / "model", "cpu", 1)
    ids = torch.arange(12)[None] * 7 % tiny.VOCAB
    torch.testing.assert_close(own.score(ids), expected.score(ids), atol=1e-5, rtol=1e-5)  # the same kernels
    proof = own.proof()
    assert proof["linear_quantized"] == 2 * 36864 and proof["weights_by_bits"] == {"4": 2 * 36864, "32": 320 * 64}
    assert proof["float_layers"] == ["lm_head"]
    assert proof["quantization"]["quant_method"] == "bitsandbytes"


def refused(place, path, engine="hf", **keys):
    with pytest.raises(UserError) as caught:
        fetch(place, path, engine, **keys)
    assert "\n" not in str(caught.value)
    assert not (place / "out").exists()
    return str(caught.value)


def test_a_model_that_is_not_quantized_is_no_checkpoint(place):
    assert "name it under models" in refused(place, place / "model")


def test_an_engine_that_does_not_run_its_kind(place):
    assert "safetensors, which hf runs, and not onnx" in refused(place, place / "nf4", "onnx")


def test_other_tokens_are_never_paired(place, tmp_path):
    shutil.copytree(place / "nf4", tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    told = json.loads(path.read_text())
    vocabulary = told["model"]["vocab"]
    # two bytes that the corpus has are swapped
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    path.write_text(json.dumps(told))
    assert "never paired" in refused(place, tmp_path / "other")


def test_another_vocabulary_is_another_model(place, tmp_path):
    tiny.build(tmp_path / "wide", "llama", vocab_size=352)
    byte_tokenizer.save(tmp_path / "wide", vocab_size=352, context=512)
    quantize(tmp_path / "wide", tmp_path / "wide-nf4")
    assert "352 tokens" in refused(place, tmp_path / "wide-nf4")


def test_a_corpus_that_is_no_longer_what_was_fetched(place, tmp_path):
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns(".*"))
    path = tmp_path / "place" / "corpus.json"
    path.write_text(path.read_text().replace("bread", "bred"))
    assert "corpus.json was changed after it was fetched" in refused(tmp_path / "place", tmp_path / "place" / "nf4")


def test_a_shard_that_the_index_does_not_name_is_left_where_it_lies(place, tmp_path):
    shutil.copytree(place / "nf4", tmp_path / "stale")
    state = load_file(tmp_path / "stale/model.safetensors")
    zeros = {name: torch.zeros_like(part) for name, part in state.items()}
    save_file(zeros, tmp_path / "stale/model-00009.safetensors")
    fetch(place, tmp_path / "stale")
    assert [path.name for path in (place / "out").glob("*.safetensors")] == ["model.safetensors"]


def test_a_folder_that_is_not_there(place):
    assert "nowhere" in refused(place, place / "nowhere")


def test_a_checksum_of_a_folder(place):
    assert "can only name one file" in refused(place, place / "nf4", sha256="0" * 64)
