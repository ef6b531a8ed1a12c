"""A checkpoint's own generation settings have no place in a measurement: left out in every engine, and named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from tests import tiny
from workflow.tradeoff.engines import hf
from workflow.tradeoff.evaluate.generation import stop_tokens
from workflow.tradeoff.fetch import models as fetch
from workflow.tradeoff.variants import VARIANTS

TOKENS = {"bos_token_id": 256, "eos_token_id": [256, 10], "pad_token_id": 256}
SETTINGS = {
    "beams": {"num_beams": 8},
    "no cache": {"use_cache": False},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "suppress_tokens": [10]},
    "a dict": {"return_dict_in_generate": True, "output_scores": True},
    "another cache": {"cache_implementation": "static"},
    "stop strings": {"stop_strings": ["the"]},
    "sampling": {"do_sample": True, "temperature": 0.6, "num_return_sequences": 4},
    "what does not fit together": {"num_return_sequences": 4},
    "length": {"max_length": 5, "min_new_tokens": 3},
    "unheard": {"patience_of_the_reader": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny") / "llama", "llama")


def generated(folder: Path) -> torch.Tensor:
    engine = hf.load(VARIANTS["torch-fp32"], folder, folder, "cpu", 1)
    return engine.generate(torch.arange(60, 70)[None], 12)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_left_out_and_named(name, where, plain, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    if where == "config.json" and name == "unheard":
        pytest.skip("what else stands in config.json is the model's")
    (folder / "generation_config.json").write_text(json.dumps(TOKENS))
    own = json.loads((folder / where).read_text())
    (folder / where).write_text(json.dumps(own | SETTINGS[name] | {"transformers_version": "4.57.6"}))
    for dtype in ("auto", "bfloat16"):
        manifest = fetch.fetch_model("m", {"source": "local", "path": str(folder), "dtype": dtype}, tmp_path / dtype)
        assert manifest["generation_settings"] == SETTINGS[name]
        assert json.loads((tmp_path / dtype / "generation_config.json").read_text()) == TOKENS
    assert next(iter(SETTINGS[name])) in capsys.readouterr().err
    assert torch.equal(generated(tmp_path / "auto"), generated(plain))
    # which token ends a text is no setting
    model = tmp_path / "auto"
    config, tokenizer = AutoConfig.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    assert stop_tokens(config, tokenizer, model) == {256, 10}


def test_how_a_library_is_to_run_it_is_no_part_of_a_model(plain, tmp_path):
    said = {"return_dict": False, "torchscript": True, "attn_implementation": "flash_attention_2"}
    folder = shutil.copytree(plain, tmp_path / "model")
    own = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(own | said))
    manifest = fetch.fetch_model("m", {"source": "local", "path": str(folder)}, tmp_path / "out")
    assert manifest["generation_settings"] == said
    assert torch.equal(generated(tmp_path / "out"), generated(plain))


def test_a_file_that_is_no_json(plain, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    (folder / "generation_config.json").write_text("{")
    manifest = fetch.fetch_model("m", {"source": "local", "path": str(folder)}, tmp_path / "out")
    assert manifest["generation_settings"] == {"unreadable": "generation_config.json"}
    assert torch.equal(generated(tmp_path / "out"), generated(plain))
