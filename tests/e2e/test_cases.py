"""Unusual inputs, from the source to the figure: each gives the perplexity of transformers' own loss, or one line.

docs/inputs.md is the table of them. Models are small and hardly trained; the reference shares no code with the product.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

from tests import tiny
from tests.unit.fetch import test_gguf_file as gguf_file
from tests.unit.fetch import test_gguf_settings as gguf_settings
from tests.unit.fetch.test_shards import split
from workflow.tradeoff.evaluate.__main__ import main as evaluate
from workflow.tradeoff.fetch.__main__ import main as fetch
from workflow.tradeoff.fetch.sources import byte_tokenizer

WINDOW, TOKENS, CONTEXT = 32, 310, 96
ROWS = ["", " = The bridge = \n", "", *(f" {line} \n" for line in tiny.TEXT.splitlines())]
TEXT = "".join(row or " \n" for row in ROWS).encode()
GEMMA = {
    "vocab_size": tiny.VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 32, "sliding_window": 16,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
SIGHT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
         "patch_size": 14}  # fmt: skip


def reference(model, encode) -> float:
    """Perplexity of a model by its own loss: rows joined by a blank line, windows that do not overlap."""
    ids = torch.tensor(encode("\n\n".join(ROWS)))
    losses = []
    with torch.no_grad():
        for start in range(0, len(ids) - WINDOW + 1, WINDOW):
            window = ids[None, start : start + WINDOW]
            losses.append(model.eval()(input_ids=window, labels=window).loss.double().item())
            if len(losses) * (WINDOW - 1) >= TOKENS:
                break
    return math.exp(np.mean(losses))


def encode(text: str) -> list[int]:
    return list(text.encode())  # the byte-level tokenizer's ids


def eager(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def evaluated(source: dict, text: bytes, folder: Path, new_tokens: int = 6) -> dict:
    """What the workflow's commands make of a model and a text: the quality JSON of torch-fp32."""
    (folder / "text").write_bytes(text)
    corpus = {"source": "local", "path": str(folder / "text"), "format": "wikitext"}
    fetch(["corpus", "--name", "t", "--source", json.dumps(corpus), "--output", str(folder / "t.json")])
    fetch(["model", "--name", "m", "--source", json.dumps(source), "--output", str(folder / "m")])
    flags = {
        "study": "s", "model": "m", "variant": "torch-fp32", "baseline": "torch-fp32", "artifact": folder / "m",
        "model-folder": folder / "m", "corpus": folder / "t.json", "conventions": f"windows-{WINDOW}",
        "max-tokens": TOKENS, "generate-tokens": new_tokens, "device": "cpu", "threads": 1,
        "output": folder / "quality.json",
    }  # fmt: skip
    evaluate([word for key, value in flags.items() for word in (f"--{key}", str(value))])
    return json.loads((folder / "quality.json").read_text())


def perplexity(quality: dict) -> float:
    assert quality["status"] == "ok", quality["reason"]
    return quality["conventions"][f"windows-{WINDOW}"]["perplexity"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    config = tiny.config("llama", context=CONTEXT)
    return tiny.write(tmp_path_factory.mktemp("plain") / "llama", config, steps=60)


def edited(plain: Path, folder: Path, **change) -> Path:
    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def stale(plain, folder):
    split(plain, folder)
    zeros = {name: torch.zeros_like(value) for name, value in load_file(plain / "model.safetensors").items()}
    save_file(zeros, folder / "model-00003-of-00003.safetensors", {"format": "pt"})


def doubled(plain, folder):
    edited(plain, folder, dtype="float64")
    state = {name: value.double() for name, value in load_file(plain / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def settled(**settings):
    def make(plain, folder):
        shutil.copytree(plain, folder)
        (folder / "generation_config.json").write_text(json.dumps(settings))

    return make


SAME = {  # copies of one model that say it otherwise
    "a stale shard": stale,
    "shards of other names": lambda plain, folder: split(plain, folder, "consolidated-{:02d}.safetensors"),
    "float64": doubled,
    "an old class name": lambda plain, folder: edited(plain, folder, architectures=["LLaMAForCausalLM"]),
    "beams": settled(num_beams=8, repetition_penalty=1.5),
    "no cache": settled(use_cache=False, cache_implementation="static"),
    "a dict": settled(return_dict_in_generate=True, output_scores=True),
    "sampling": settled(do_sample=True, temperature=0.6, num_return_sequences=4, stop_strings=["the"]),
}


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("name", SAME)
def test_another_form_of_the_same_model_gives_the_same_figures(name, dtype, plain, tmp_path):
    SAME[name](plain, tmp_path / "source")
    quality = evaluated({"source": "local", "path": str(tmp_path / "source"), "dtype": dtype}, TEXT, tmp_path)
    right = reference(eager(plain), encode)
    assert perplexity(quality) == pytest.approx(right, rel=1e-5 if dtype == "auto" else 0.02)
    if dtype == "auto":
        expected = evaluated({"source": "local", "path": str(plain)}, TEXT, tmp_path)
        assert quality["generated"] == expected["generated"]


TEXTS = {
    "CRLF": TEXT.replace(b"\n", b"\r\n"),
    "CR": TEXT.replace(b"\n", b"\r"),
    "a byte order mark": "\ufeff".encode() + TEXT,
}


@pytest.mark.parametrize("name", TEXTS)
def test_another_form_of_the_same_text_gives_the_same_figures(name, plain, tmp_path):
    quality = evaluated({"source": "local", "path": str(plain)}, TEXTS[name], tmp_path)
    assert perplexity(quality) == pytest.approx(reference(eager(plain), encode), rel=1e-5)


OTHERS = {
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": WINDOW},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_families(kind, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=tiny.VOCAB, **OTHERS[kind], **tiny.SPECIAL)
    folder = tiny.write(tmp_path / "source", config, context=min(CONTEXT, OTHERS[kind].get("n_positions", CONTEXT)))
    quality = evaluated({"source": "local", "path": str(folder)}, TEXT, tmp_path, new_tokens=1)
    assert perplexity(quality) == pytest.approx(reference(eager(folder), encode), rel=1e-5)


def test_the_text_part_of_a_multimodal_model(tmp_path):
    config = Gemma3Config(text_config=GEMMA, vision_config=SIGHT, mm_tokens_per_image=4, image_token_index=312)
    model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.save_pretrained(tmp_path / "source")
    byte_tokenizer.save(tmp_path / "source", vocab_size=tiny.VOCAB, context=CONTEXT)
    quality = evaluated({"source": "local", "path": str(tmp_path / "source")}, TEXT, tmp_path)
    assert perplexity(quality) == pytest.approx(reference(model, encode), rel=1e-5)


@pytest.mark.parametrize("name", ["llama 3", "yarn"])
def test_a_gguf_file_whose_positions_are_scaled(name, tmp_path):
    more, scaling, _ = gguf_settings.SCALED[name]
    path = gguf_file.write(tmp_path / "a.gguf", more=more, pre="gpt-2")
    quality = evaluated({"source": "local", "path": str(path)}, TEXT, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path / "m")
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.load_state_dict(eager(tmp_path / "m").state_dict())
    model.model.rotary_emb = type(model.model.rotary_emb)(gguf_settings.llama(scaling))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert perplexity(quality) == pytest.approx(reference(model, tokenizer.encode), rel=1e-3)
