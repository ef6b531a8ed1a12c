"""Variants as data: presets, a config's own, and every combination that an engine or quantizer does not know."""

import importlib
import json
import math
import re
from pathlib import Path

import pytest

from workflow.tradeoff import errors, variants
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.settings import schema
from workflow.tradeoff.variants import VARIANTS, build

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ROOT / "config" / "README.md").read_text()
G128 = {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "block": 128, "symmetric": False}}


def settings():
    for quantizer, entry in schema()["quantizers"].items():
        for key, part in entry["properties"].items():
            yield f"`{quantizer}` `{key}`", part
    for engine, entry in schema()["engines"].items():
        for key, part in entry["options"].items():
            yield f"options of `{engine}` `{key}`", part


@pytest.mark.parametrize(("name", "part"), list(settings()))
def test_every_setting_is_documented_with_its_default_and_bounds(name, part):
    row = next(line for line in DOCUMENTED.splitlines() if line.startswith(f"| {name} |"))
    assert part["description"] in row
    shown = str(part.get("default")).lower() if part["type"] == "boolean" else part.get("default")
    assert row.endswith(f"| `{shown}` |" if "default" in part else "| required |")
    for word in part.get("enum", []):
        assert f"`{word}`" in row
    for key, value in part.get("when", {}).items():
        assert f"`{key}: {value}`" in row


def test_the_documented_engines_are_those_of_the_schema():
    for engine, entry in schema()["engines"].items():
        assert re.search(
            rf"^\| `{engine}` \| .* \| {', '.join(f'`{q}`' for q in entry['quantizers'])} \|$", DOCUMENTED, re.M
        )


def test_a_defined_variant_is_what_it_says():
    variant = build("int4-g128", G128)
    assert (variant.bits, variant.precision, variant.cache, variant.quantized) == (4, "int4", True, True)
    assert variant.recipe["accuracy_level"] == 4  # by default
    assert variant.artifact == "onnx-matmul-nbits-bits.4-block.128-symmetric.false-kv"
    assert build("again", variant.definition()).definition() == variant.definition()


def test_variants_of_one_recipe_share_its_files_and_others_do_not():
    other = {**G128, "options": {"provider": "cpu"}}
    assert build("a", G128).artifact == build("b", other).artifact
    assert build("a", G128).artifact != VARIANTS["onnx-int4-kv"].artifact
    spelt_out = {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "block": 32, "wider": "mix"}}
    assert build("c", spelt_out).artifact == VARIANTS["onnx-int4-kv"].artifact


MISTAKES = {
    "no engine": ({"engine": "tensorrt"}, "define.own.engine"),
    "no quantizer": ({"engine": "hf", "recipe": {}}, "define.own.recipe.quantizer"),
    "a quantizer of another engine": (
        {"engine": "hf", "recipe": {"quantizer": "dynamic"}},
        "not made for the engine hf",
    ),
    "an unknown setting": ({**G128, "recipe": {**G128["recipe"], "group": 3}}, "define.own.recipe.group is unknown"),
    "a missing setting": ({"engine": "onnx", "recipe": {"quantizer": "matmul-nbits"}}, "recipe.bits is missing"),
    "out of bounds": ({**G128, "recipe": {**G128["recipe"], "accuracy_level": 5}}, "out of bounds: 0 to 4"),
    "not one of the values": ({**G128, "recipe": {**G128["recipe"], "block": 100}}, "one of 16, 32, 64, 128, 256"),
    "another type": ({**G128, "recipe": {**G128["recipe"], "symmetric": "no"}}, "is no boolean"),
    "true for a number": ({"engine": "hf", "recipe": {"quantizer": "bitsandbytes", "bits": True}}, "is no integer"),
    "no meaning beside another": (
        {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "algorithm": "hqq", "symmetric": True}},
        "takes it only with algorithm: rtn",
    ),
    "no 8-bit k_quant": (
        {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 8, "algorithm": "k_quant"}},
        "recipe.algorithm",
    ),
    "what the engine cannot": (
        {"engine": "graph", "recipe": {"quantizer": "bitsandbytes", "bits": 8}},
        "the engine graph has no 6.0",
    ),
    "bits that vLLM has no kernel for": (
        {"engine": "vllm", "recipe": {"quantizer": "auto-round", "bits": 2}},
        "the engine vllm has no 2: one of 4, 8",
    ),
    "a mix that vLLM has no kernels for": (
        {"engine": "vllm", "recipe": {"quantizer": "auto-round", "bits": 4, "average_bits": 5, "finer": True}},
        "the engine vllm has no True: one of False",
    ),
    "a finer mix of no mix": (
        {"engine": "hf", "recipe": {"quantizer": "auto-round", "bits": 4, "finer": True}},
        "recipe.finer: quantizer auto-round takes it only with average_bits: remove it",
    ),
    "an average below the fewest bits": (
        {"engine": "hf", "recipe": {"quantizer": "auto-round", "bits": 4, "average_bits": 4}},
        "recipe.average_bits: 4 is not above bits: 4: give more, or 0",
    ),
    "an unknown option": ({**G128, "options": {"threads": 3}}, "define.own.options.threads is unknown"),
    "an unknown key": ({**G128, "precision": "int4"}, "define.own.precision is unknown"),
    "a recipe that is no mapping": ({"engine": "onnx", "recipe": "int4"}, "give a mapping"),
    "a checkpoint recipe without a checkpoint": ({"engine": "hf", "recipe": {"quantizer": "checkpoint"}}, "give both"),
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(given, said):
    with pytest.raises(UserError) as caught:
        build("own", given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Own", "a.b", "-a", "a b", "x" * 65, ""])
def test_a_name_can_be_a_file_s(name):
    with pytest.raises(UserError, match="name"):
        build(name, G128)


@pytest.mark.parametrize("stage", ["evaluate.__main__", "evaluate.diagnose", "measure.__main__", "measure.sample"])
def test_a_stage_takes_a_variant_that_its_own_flag_defines(stage, capsys):
    """Of its flags only the variant is given, so it ends with those that are missing; its name is none of them."""
    words = ["--define", json.dumps({"own": G128}), "--variant", "own"]
    with pytest.raises(SystemExit):
        importlib.import_module(f"workflow.tradeoff.{stage}").main(words)
    said = capsys.readouterr().err
    assert "invalid choice" not in said and "are required" in said


def test_a_preset_is_not_defined_again():
    with pytest.raises(UserError, match=r"define\.bnb-nf4: a preset has this name"):
        variants.define({"bnb-nf4": G128})


def test_a_stage_knows_what_its_flags_define():
    variants.define({"int4-g128": G128})
    flags = variants.flags("int4-g128", "torch-fp32")
    assert variants.flags("torch-fp32") == [] and json.loads(flags[1]).keys() == {"int4-g128"}
    del VARIANTS["int4-g128"]
    parser = errors.parser("")
    variants.add_flag(parser)
    parser.add_argument("--variant", choices=VARIANTS)
    assert parser.parse_args([*flags, "--variant", "int4-g128"]).variant == "int4-g128"
    assert VARIANTS["int4-g128"].recipe["block"] == 128


def test_a_cache_of_fewer_bits_is_another_variant_of_the_same_file():
    given = {"engine": "llamacpp", "recipe": {"quantizer": "gguf", "type": "q8_0"}}
    plain, told, kept = (
        build("x", given | {"options": options}) for options in ({}, {"cache_type": "f16"}, {"cache_type": "q8_0"})
    )
    assert plain.artifact == kept.artifact == "gguf-q8_0"
    assert (plain.cache_type, told.cache_type, kept.cache_type) == ("", "", "q8_0")
    assert kept.words == "llama.cpp, 8-bit weights, keys and values in q8_0" and "keys" not in plain.words
    assert VARIANTS["torch-fp32"].cache_type == VARIANTS["vllm-fp16"].cache_type == ""


def test_a_gguf_file_is_named_by_its_mix_and_has_the_bits_of_its_name():
    names = ("gguf-f16", "gguf-q8_0", "gguf-q5_k_m", "gguf-q4_0", "gguf-source")
    assert [(VARIANTS[name].artifact, VARIANTS[name].bits, VARIANTS[name].quantized) for name in names] == [
        ("gguf-f16", 16, False), ("gguf-q8_0", 8, True), ("gguf-q5_k_m", 5, True), ("gguf-q4_0", 4, True),
        ("gguf-source", 0, True),
    ]  # fmt: skip
    weighted = build("w", {"engine": "llamacpp", "recipe": {"quantizer": "gguf", "type": "q4_k_m", "imatrix": True}})
    assert weighted.artifact == "gguf-q4_k_m-imatrix"


def test_autorounds_file_is_one_for_both_engines():
    assert VARIANTS["autoround-int4"].artifact == VARIANTS["vllm-w4a16"].artifact
    assert VARIANTS["vllm-w4a16"].artifact == "packed-auto-round-bits.4-group.64"


def test_a_mixed_recipe_says_its_average_and_takes_each_of_its_bits():
    recipe = {"quantizer": "auto-round", "bits": 2, "average_bits": 4.25, "iterations": 0}
    mixed, plain = (build("m", {"engine": "hf", "recipe": recipe | more}) for more in ({}, {"average_bits": 0}))
    assert [bits for bits in range(17) if mixed.stored_in(bits)] == [2, 4, 8]
    assert [bits for bits in range(17) if plain.stored_in(bits)] == [2]
    finer = build("f", {"engine": "hf", "recipe": recipe | {"bits": 3, "finer": True}})
    assert [bits for bits in range(17) if finer.stored_in(bits)] == [3, 4, 5, 6, 8]
    assert mixed.words == "PyTorch (transformers), weights of 2, 4, 8 bits, 4.25 on average"
    assert (mixed.precision, plain.precision, mixed.quantized) == ("int2-4-8", "int2", True)
    # the choice of bits reads the text, rounding to nearest does not
    assert variants.calibrated(mixed.recipe) and not variants.calibrated(plain.recipe)


def test_a_name_does_not_promise_fewer_bits_than_were_seen():
    assert VARIANTS["gguf-q4_k_m"].told(6.2) == "llama.cpp, weights of 4 bits and more, 6.2 bits each on average"
    assert VARIANTS["gguf-q8_0"].told(8.5) == "llama.cpp, 8-bit weights, 8.5 bits each on average"
    assert VARIANTS["gguf-q8_0"].told(math.nan) == VARIANTS["gguf-q8_0"].words
