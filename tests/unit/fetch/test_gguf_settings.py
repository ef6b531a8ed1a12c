"""What a GGUF file states is in the model that is made of it, or the file is refused by the name of the key."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.unit.fetch.fetching import refused
from tests.unit.fetch.test_gguf_file import CONTEXT, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCABULARY, local, write
from workflow.tradeoff.fetch import models as fetch
from workflow.tradeoff.fetch.sources import gguf_settings

IDS = torch.arange(10, 60)[None]
HALF = HIDDEN // HEADS // 2  # frequencies of a head
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
WAVES = 2 * np.pi * 10000.0 ** (np.arange(HALF) / HALF)
ODD = np.array([1.0, 1.25, 3.0, 4.5])


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict:
    """The weights of the tiny Llama, without any scaling."""
    folder = tmp_path_factory.mktemp("plain")
    fetch.fetch_model("tiny", local(write(folder / "a.gguf")), folder / "out")
    return AutoModelForCausalLM.from_pretrained(folder / "out").state_dict()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def llama(scaling: dict | None) -> LlamaConfig:
    """The config of the tiny Llama, with this scaling of its positions."""
    return LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_scaling=scaling, attn_implementation="eager",
    )  # fmt: skip


def expected(plain: dict, scaling: dict | None, divide: np.ndarray | None = None) -> torch.Tensor:
    """Logits of a Llama of the same weights whose config has this scaling, or whose frequencies are divided so."""
    model = AutoModelForCausalLM.from_config(llama(scaling))
    model.load_state_dict(plain)
    if divide is not None:
        model.model.rotary_emb.inv_freq /= torch.tensor(divide, dtype=torch.float32)
    return logits(model)


def factors(values) -> callable:
    return lambda writer: writer.add_tensor("rope_freqs.weight", np.asarray(values, dtype=np.float32))


def linear(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def yarn(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(16)


def older(writer):
    writer.add_float32("llama.rope.scale_linear", 4.0)


LINEAR = {"rope_type": "linear", "factor": 4.0}
SCALED = {
    "llama 3": (factors(gguf_settings.llama3(WAVES, 8.0, 32.0)), {"rope_type": "llama3", **LLAMA3}, None),
    "factors of no rule": (factors(ODD), None, ODD),
    "factors of one": (factors(np.ones(HALF)), None, None),
    "linear": (linear, LINEAR, None),
    "linear, older key": (older, LINEAR, None),
    "yarn": (yarn, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, None),
    "none": (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.NONE), None, None),
}


@pytest.mark.parametrize("name", SCALED)
def test_scaled_rotary_positions(name, plain, tmp_path):
    more, scaling, divide = SCALED[name]
    fetch.fetch_model("tiny", local(write(tmp_path / "a.gguf", more=more)), tmp_path / "out")
    got = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager"))
    torch.testing.assert_close(got, expected(plain, scaling, divide), rtol=1e-4, atol=1e-3)
    if name not in ("none", "factors of one"):
        assert (got - expected(plain, None)).abs().max() > 1  # what the factors' loss would cost


STATED = {
    "llama.attn_logit_softcapping": lambda writer: writer.add_attn_logit_softcapping(50.0),
    "llama.final_logit_softcapping": lambda writer: writer.add_final_logit_softcapping(30.0),
    "llama.attention.sliding_window": lambda writer: writer.add_sliding_window(16),
    "llama.expert_count": lambda writer: writer.add_expert_count(8),
    "llama.expert_used_count": lambda writer: writer.add_expert_used_count(2),
    "llama.rope.dimension_count": lambda writer: writer.add_rope_dimension_count(4),
    "llama.attention.value_length": lambda writer: writer.add_value_length(16),
    "llama.attention.causal": lambda writer: writer.add_causal_attention(False),
    "llama.logit_scale": lambda writer: writer.add_logit_scale(0.5),
    "llama.rope.scaling.yarn_log_multiplier": lambda writer: writer.add_rope_scaling_yarn_log_mul(0.1),
    "llama.rope.scaling.type longrope": lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
    "llama.something.new": lambda writer: writer.add_uint32("llama.something.new", 3),
    "blk.0.attn_q.bias": lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.ones(HIDDEN, dtype=np.float32)),
    "rope_factors_long.weight": lambda writer: writer.add_tensor("rope_factors_long.weight", ODD.astype(np.float32)),
}


@pytest.mark.parametrize("key", STATED)
def test_what_a_config_has_no_place_for_is_refused_by_name(key, tmp_path):
    path = write(tmp_path / "a.gguf", more=STATED[key])
    refused("model", local(path), tmp_path, key, "conversion would drop", "safetensors")


def test_what_decides_nothing_is_taken(plain, tmp_path):
    def more(writer):
        writer.add_expert_count(0)
        writer.add_causal_attention(True)
        writer.add_logit_scale(1.0)
        writer.add_key_length(HIDDEN // HEADS)
        writer.add_value_length(HIDDEN // HEADS)
        writer.add_rope_dimension_count(HIDDEN // HEADS)
        writer.add_sliding_window(CONTEXT)
        writer.add_uint32("split.count", 1)

    fetch.fetch_model("tiny", local(write(tmp_path / "a.gguf", more=more)), tmp_path / "out")
    got = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager"))
    torch.testing.assert_close(got, expected(plain, None), rtol=1e-4, atol=1e-3)


def parts(folder: Path, count: int = 2) -> Path:
    """The tiny Llama in parts; the first."""
    names = [f"m-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1)]
    for index, name in enumerate(names):
        write(folder / name, part=(index, count), more=lambda writer: writer.add_uint16("split.count", count))
    return folder / names[0]


def test_a_file_in_parts_is_read_whole(plain, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    first = parts(folder)
    # neither counts: what is named is the GGUF file
    (folder / "generation_config.json").write_text(json.dumps({"num_beams": 8}))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    manifest = fetch.fetch_model("tiny", local(first), tmp_path / "out")
    assert not any("gguf" in name for name in manifest["files"])
    got = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager"))
    torch.testing.assert_close(got, expected(plain, None), rtol=1e-4, atol=1e-3)
    second = folder / "m-00002-of-00002.gguf"
    refused("model", local(second), tmp_path, "part 2 of 2", "name the first part, m-00001-of-00002.gguf")
    shutil.move(second, folder / "elsewhere.gguf")
    refused("model", local(first), tmp_path, "m-00002-of-00002.gguf is not beside it", "one folder")
    shutil.move(first, folder / "m.gguf")
    refused("model", local(folder / "m.gguf"), tmp_path, "one of 2 parts", "own names")


def test_a_checksum_names_one_file(tmp_path):
    refused("model", local(parts(tmp_path)) | {"sha256": "0" * 64}, tmp_path, "sha256", "has 2 of weights")
