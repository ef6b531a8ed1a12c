"""What kinds of checkpoints are taken: old names, other numbers, texts within multimodal models; or one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from tests import tiny
from tests.unit.fetch.fetching import refused
from workflow.tradeoff.fetch import models as fetch
from workflow.tradeoff.fetch.sources import byte_tokenizer

IDS = torch.arange(24)[None]
PARTS = {"vocab_size": tiny.VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**PARTS, "intermediate_size": 128, "num_key_value_heads": 2, "max_position_embeddings": 96}
SIGHT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 28, "patch_size": 14}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny") / "llama", "llama")


def source(folder: Path) -> dict:
    return {"source": "local", "path": str(folder)}


def edited(plain: Path, folder: Path, **change) -> Path:
    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def stored(folder: Path, change) -> Path:
    """Replace the weights in ``folder`` by ``change(name, tensor)``, a dict each."""
    state = load_file(folder / "model.safetensors")
    changed = {}
    for name, tensor in state.items():
        changed |= change(name, tensor)
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return folder


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits


@pytest.mark.parametrize("name", ["LLaMAForCausalLM", "LlamaLMHeadModel", "OldForCausalLM"])
def test_class_names_of_old_checkpoints(name, plain, tmp_path):
    fetch.fetch_model("tiny", source(edited(plain, tmp_path / "model", architectures=[name])), tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), logits(plain))
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("name", ["LlamaModel", "LlamaForSequenceClassification", "LlamaForTokenClassification"])
def test_other_heads_are_refused(name, plain, tmp_path):
    folder = edited(plain, tmp_path / "model", architectures=[name])
    refused("model", source(folder), tmp_path, f"is a {name}, not a causal language model")


FAMILIES = {
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 96},
    "gpt_neo": {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
                "max_position_embeddings": 96},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96},
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_by_their_own_words(kind, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=tiny.VOCAB, **FAMILIES[kind], **tiny.SPECIAL)
    folder = tiny.write(tmp_path / "model", config, context=96)
    manifest = fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert manifest["context"] == (None if kind == "bloom" else 96)
    assert torch.equal(logits(tmp_path / "out"), logits(folder))


def test_float64_is_kept_as_float32(plain, tmp_path, capsys):
    folder = stored(edited(plain, tmp_path / "model", dtype="float64"), lambda name, value: {name: value.double()})
    manifest = fetch.fetch_model("tiny", source(folder), tmp_path / "out")
    assert manifest["dtype"] == "float32" and "float64, and kept as float32" in capsys.readouterr().err
    assert torch.equal(logits(tmp_path / "out"), logits(plain))
    assert {value.dtype for value in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float32}


def packed(name: str, value: torch.Tensor) -> dict:
    """GPTQ's tensors in place of a projection."""
    if not name.endswith("proj.weight"):
        return {name: value}
    rows, columns = value.shape
    own = {"qweight": torch.zeros(columns // 8, rows, dtype=torch.int32), "scales": torch.ones(1, rows).half()}
    return {name.replace("weight", key): tensor for key, tensor in own.items()}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda name, value: {name: value.to(torch.float8_e4m3fn) if value.dim() == 2 else value}, "float8_e4m3fn"),
        (lambda name, value: {name: value.to(torch.int8) if value.dim() == 2 else value}, "int8"),
        (packed, "qweight in int32"),
        (lambda name, value: {name: value, name.replace(".weight", ".weight_scale"): torch.ones(1)}, "weight_scale"),
    ],
    ids=["float8", "int8", "packed", "scaled"],
)
def test_numbers_that_need_a_reader_are_one_line(change, word, plain, tmp_path):
    folder = stored(edited(plain, tmp_path / "model"), change)
    refused("model", source(folder), tmp_path, word, "no quantization_config", "float32, float16 or bfloat16")


QUANTIZED = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128}, ("gptq, 4 bits", "gptqmodel")),
    "awq": ({"quant_method": "awq", "bits": 4, "version": "gemm"}, ("awq, 4 bits", "gptqmodel")),
    "fp8": ({"quant_method": "fp8", "fmt": "e4m3"}, ("(fp8)",)),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("(bitsandbytes)",)),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, ("compressed-tensors", "compressed_tensors")),
    "older": ({"load_in_8bit": True}, ("(bitsandbytes)",)),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_checkpoint_is_one_line(kind, plain, tmp_path):
    stated, words = QUANTIZED[kind]
    folder = stored(edited(plain, tmp_path / "model", quantization_config=stated), packed)
    refused("model", source(folder), tmp_path, "already quantized", "unquantized model", "`checkpoint`", *words)


def test_a_quantizer_s_own_file_says_so_too(plain, tmp_path):
    folder = edited(plain, tmp_path / "model")
    (folder / "quantize_config.json").write_text("{}")
    refused("model", source(folder), tmp_path, "already quantized", "quantize_config.json")


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_the_text_part_of_a_multimodal_model_is_run(kind, tmp_path):
    if kind == "gemma3":
        text = TEXT | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
        config = Gemma3Config(text_config=text, vision_config=SIGHT, mm_tokens_per_image=4, image_token_index=312)
        model = Gemma3ForConditionalGeneration(config)
    else:
        text, sight = TEXT | {"model_type": "llama"}, SIGHT | {"model_type": "clip_vision_model"}
        config = LlavaConfig(text_config=text, vision_config=sight, image_token_index=312)
        model = LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer.save(tmp_path / "model", vocab_size=tiny.VOCAB, context=96)
    manifest = fetch.fetch_model("tiny", source(tmp_path / "model"), tmp_path / "out")
    assert manifest["taken_from"] == type(model).__name__ and manifest["context"] == 96
    with torch.no_grad():
        expected = model.eval()(input_ids=IDS).logits
    assert torch.allclose(logits(tmp_path / "out"), expected, atol=1e-6)


REFUSED = {
    "mamba": {"model_type": "mamba", "architectures": ["MambaForCausalLM"]},
    "rwkv": {"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]},
    "jamba": {"model_type": "jamba", "architectures": ["JambaForCausalLM"]},
    "openai-gpt": {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"]},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_without_a_cache_of_keys_and_values(kind, plain, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    (folder / "config.json").write_text(json.dumps(REFUSED[kind]))
    refused("model", source(folder), tmp_path, REFUSED[kind]["architectures"][0], "keys and values", "attention layers")


def test_a_model_that_looks_ahead_is_refused(tmp_path):
    config = BertConfig(**PARTS, intermediate_size=128, max_position_embeddings=96)
    for decoder in (False, True):
        config.is_decoder = decoder
        BertLMHeadModel(config).save_pretrained(tmp_path / f"{decoder}")
        byte_tokenizer.save(tmp_path / f"{decoder}", vocab_size=tiny.VOCAB, context=96)
    refused("model", source(tmp_path / "False"), tmp_path, "later tokens in view", "give a causal language model")
    fetch.fetch_model("tiny", source(tmp_path / "True"), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 0}, ("config.json",)),
        ({"hidden_act": "unheard"}, ("unheard",)),
        ({"rope_scaling": {"rope_type": "unheard", "factor": 2.0}}, ("unheard",)),
        ({"hidden_size": "wide"}, ("model",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_whatever_the_library_throws_is_one_line(change, words, plain, tmp_path):
    refused("model", source(edited(plain, tmp_path / "model", **change)), tmp_path, *words)


def test_a_tokenizer_that_cannot_be_read_is_one_line(plain, tmp_path):
    folder = edited(plain, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    refused("model", source(folder), tmp_path, "the tokenizer of model thing cannot be used")
