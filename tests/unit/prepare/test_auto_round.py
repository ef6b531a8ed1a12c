"""AutoRound's files: what they hold, by hand, against what the engine computes and what was asked for."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import scored, tiny
from workflow.tradeoff import files
from workflow.tradeoff.engines import hf, packed
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.prepare import auto_round, calibration
from workflow.tradeoff.summarize.gates import not_quantized
from workflow.tradeoff.variants import build

needs_package = pytest.mark.skipif(find_spec("auto_round") is None, reason="auto-round is not in this environment")
GROUP = 64
HIDDEN, FORWARD, KEYS = 128, 256, 64
PACKED = 2 * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * FORWARD)
HEAD = tiny.VOCAB * HIDDEN
IDS = torch.tensor([[(7 * place) % 256 for place in range(40)]])
TEXT = [f"{index} {line}\n" for index in range(40) for line in tiny.TEXT.splitlines()]


def variant(**recipe):
    given = {"quantizer": "auto-round", "bits": 4, "group": GROUP, "samples": 8, "length": 32, **recipe}
    return build("own", {"engine": "hf", "recipe": given})


NEAREST = variant(iterations=0)
LEARNED = variant(iterations=15)
MIXED = variant(bits=3, average_bits=4.3125, finer=True, iterations=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny trained Llama, a text to learn from and one to score."""
    root = tmp_path_factory.mktemp("auto_round")
    files.write_manifest(tiny.build(root / "model", "llama", hidden=HIDDEN, trained=True), source={})
    scored.write_corpus(root / "text.json", TEXT)
    scored.write_corpus(root / "scored.json", ["Of another river.\n"])
    return root


def make(folder, spec, output, **texts):
    flags = ["--model-folder", folder / "model", "--recipe", json.dumps(dict(spec.recipe)), "--device", "cpu"]
    flags += ["--threads", "1", "--output", output]
    for key, path in texts.items():
        flags += [f"--{key}", path]
    auto_round.main(list(map(str, flags)))
    return output


def texts(folder):
    return {"calibration": folder / "text.json", "scored": folder / "scored.json"}


@pytest.fixture(scope="module")
def nearest(folder):
    return make(folder, NEAREST, folder / "nearest")


@pytest.fixture(scope="module")
def mixed(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        made = make(folder, MIXED, folder / "mixed", **texts(folder))
    assert not (folder / "home").exists()  # nothing is kept outside the results
    return made


def load(folder, spec, output):
    return hf.load(spec, output, folder / "model", "cpu", 1)


def unpacked(words, bits):
    """Integers of ``bits`` in 32-bit ``words`` (n, m), one after another from the lowest bit: (n * 32 / bits, m)."""
    each = (words.view(np.uint32)[:, None, :] >> np.arange(32, dtype=np.uint32)[None, :, None]) & 1
    return (each.reshape(-1, bits, words.shape[1]) << np.arange(bits, dtype=np.uint32)[None, :, None]).sum(1)


def by_hand(output):
    """Each packed matrix (outputs, inputs) in float32: integers less their middle, times the group's float16 scale."""
    stored = {name: part.numpy() for name, part in load_file(output / "model.safetensors").items()}
    found = {}
    for name in (name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")):
        scales, words = stored[f"{name}.scales"], stored[f"{name}.qweight"]
        bits = 32 * len(words) // (GROUP * len(scales))
        steps = unpacked(words, bits).astype(np.int32) - 2 ** (bits - 1)
        # the product of a step and a scale is rounded to float16, as a kernel for 16 bits does
        found[name] = (steps.astype(np.float16) * np.repeat(scales, GROUP, 0)).astype(np.float32).T
    return found


@needs_package
@pytest.mark.parametrize("spec", [NEAREST, MIXED], ids=["nearest", "mixed"])
def test_the_engine_computes_what_the_file_stores(folder, nearest, mixed, spec):
    output = nearest if spec is NEAREST else mixed
    network = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    matrices = by_hand(output)
    assert sum(matrix.size for matrix in matrices.values()) == PACKED
    for parameter in network.parameters():  # what stays in floats is stored in 16 bits; angles are not stored
        parameter.data = parameter.data.half().float()
    for name, matrix in matrices.items():
        network.get_submodule(name).weight.data = torch.from_numpy(matrix.copy())
    with torch.no_grad():
        expected = network(IDS).logits
    got = load(folder, spec, output).score(IDS)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@needs_package
def test_without_iterations_it_rounds_to_nearest(folder, nearest):
    """Written out: the largest of a group, with its sign, is the end of the scale that has one step more."""
    matrices = load_file(folder / "model" / "model.safetensors")
    for name, found in by_hand(nearest).items():
        groups = matrices[f"{name}.weight"].numpy().reshape(len(found), -1, GROUP)
        largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
        scale = (-largest / 8).astype(np.float16)
        steps = np.clip(np.round(groups / scale.astype(np.float32)), -8, 7)
        np.testing.assert_array_equal(found, (steps.astype(np.float16) * scale).reshape(found.shape))


@needs_package
def test_learned_rounding_is_closer_on_the_text_and_comes_out_the_same_again(folder, nearest):
    whole = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    learned = make(folder, LEARNED, folder / "learned", **texts(folder))
    with torch.no_grad():
        expected = whole(IDS).logits
    pairs = (LEARNED, learned), (NEAREST, nearest)
    off = [(load(folder, *pair).score(IDS) - expected).square().mean() for pair in pairs]
    assert off[0] < off[1]
    made = files.read_manifest(learned)
    assert made["calibration"] == {"corpus": "text", "sha256": "0", "pieces": 8} and made["source"]["seed"] == 0
    assert made["digest"] == files.read_manifest(make(folder, LEARNED, folder / "again", **texts(folder)))["digest"]


@needs_package
def test_the_proof_counts_packed_matrices_by_their_bits(folder, nearest, mixed):
    proof = load(folder, NEAREST, nearest).proof()
    assert proof["weights_by_bits"] == {"4": PACKED, "32": HEAD} and proof["linear_quantized"] == PACKED
    assert proof["left_unquantized"] == {"lm_head": HEAD} and proof["kernels"] == ["auto_round:torch_zp"]
    # words of 32 bits, their constants of 4 bits and scales of 16 a group
    assert proof["weight_bytes"]["int32"] == PACKED // 2 + PACKED // GROUP // 2
    assert proof["weight_bytes"]["float16"] == 2 * PACKED // GROUP
    assert proof["bits_per_weight"] == pytest.approx((PACKED * (4 + 20 / GROUP) + HEAD * 32) / (PACKED + HEAD))
    assert not_quantized(NEAREST, proof) is None
    found = load(folder, MIXED, mixed).proof()
    assert found["linear_quantized"] == PACKED and not_quantized(MIXED, found) is None
    # the gate refuses a file of other bits than the variant's
    eight = load(folder, variant(bits=8, iterations=0), nearest).proof()
    assert "only 0% of the linear weights are 8-bit" in not_quantized(variant(bits=8, iterations=0), eight)


@needs_package
def test_a_mix_keeps_its_average_and_gives_what_is_fused_the_same_bits(mixed):
    said = files.read_manifest(mixed)
    assert set(said["weights_by_bits"]) <= {"3", "4", "5", "6", "8"} and len(said["weights_by_bits"]) > 1
    assert 3.5 < said["bits_per_weight"] <= 4.3125
    stored = load_file(mixed / "model.safetensors")
    bits = {name.removesuffix(".qweight"): 32 * len(part) for name, part in stored.items() if name.endswith("qweight")}
    for layer in ("model.layers.0", "model.layers.1"):
        assert len({bits[f"{layer}.self_attn.{name}_proj"] for name in "qkv"}) == 1
        assert len({bits[f"{layer}.mlp.{name}_proj"] for name in ("gate", "up")}) == 1
    # by the bytes themselves
    kept = [part for name, part in stored.items() if name.endswith(("qweight", "qzeros", "scales"))]
    assert said["bits_per_weight"] == 8 * sum(part.nbytes for part in kept) / PACKED


@needs_package
def test_groups_that_do_not_divide_a_matrix_are_not_applicable(folder):
    wide = tiny.build(folder / "wide", "llama", hidden=192)
    with pytest.raises(CellFailure, match=r"divide the 192 inputs of model.*: a variant with group: 64 fits"):
        auto_round.make(wide, folder, dict(variant(group=128, iterations=0).recipe), None, "cpu")


def test_a_calibration_text_that_shares_a_line_with_the_scored_one_is_refused(folder):
    shared = scored.write_corpus(folder / "shared.json", ["Of its own.\n", TEXT[3]])
    with pytest.raises(UserError, match="text shares 1 lines with the corpus that is scored"):
        make(folder, LEARNED, folder / "out", calibration=folder / "text.json", scored=shared)
    with pytest.raises(UserError, match="a recipe with iterations or average_bits needs a calibration text"):
        make(folder, LEARNED, folder / "out")
    assert not (folder / "out").exists()


def test_a_text_is_cut_into_pieces_of_whole_lines_that_are_long_enough():
    def tokenizer(text):
        return {"input_ids": text.split()}

    rows = ["a b\nc d\n", "e f g h i j\n", "k l m n\n"]
    assert calibration.pieces(rows, tokenizer, 4, 3) == ["a b\nc d", "e f g h i j", "k l m n"]
    with pytest.raises(UserError, match="has 3 pieces of 4 tokens and 5 are asked for"):
        calibration.pieces(rows, tokenizer, 4, 5)


def test_without_the_package_both_making_and_running_are_unsupported(folder, monkeypatch):
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name == "auto_round":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "auto_round"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    said = "unsupported: the package auto-round is not installed here: `make env`"
    with pytest.raises(CellFailure, match=said):
        auto_round.make(folder / "model", folder, dict(NEAREST.recipe), None, "cpu")
    with pytest.raises(CellFailure, match=said):
        packed.config("cpu")


@pytest.mark.parametrize(
    ("bits", "average", "said"),
    [(8, 0, "packed matrices in {'8': 2048} bits"), (4, 4.1, "take 4.312 bits a weight, and 4.1 were asked for")],
)
def test_a_file_of_other_bits_than_asked_for_is_refused(tmp_path, bits, average, said):
    """One group of 64 inputs, 32 outputs, packed by hand."""
    tensors = {
        "a.qweight": torch.zeros(64 * bits // 32, 32, dtype=torch.int32),
        "a.qzeros": torch.zeros(1, bits, dtype=torch.int32),
        "a.scales": torch.ones(1, 32, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CellFailure) as failure:
        auto_round.refuse_others(auto_round.counted(tmp_path), dict(variant(average_bits=average).recipe))
    assert said in failure.value.reason
