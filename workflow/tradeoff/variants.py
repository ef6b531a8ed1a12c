"""The variants: every way to run a model, as data. A variant is an engine, a recipe, and options.

The known ones are presets (``workflow/presets.yaml``); a config defines its own in the same form. What an engine and a
quantizer can be told stands in ``workflow/schemas/variants.yaml``, with defaults and bounds; ``settings`` checks it.

    VARIANTS["onnx-int4-kv"].recipe["block"]        32
    define({"int4-g128": {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "block": 128}}})
"""

import argparse
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.settings import chosen, known, recipe_of, schema

FOLDER = Path(__file__).parents[1]
REFERENCE = "torch-fp16"  # the study's baseline
NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
KEYS = ("engine", "recipe", "options", "checkpoint", "label")
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
CACHELESS = ("gguf", "packed")  # files that have no choice of a cache in them
WIDTHS = {"fp32": 32, "fp16": 16, "bf16": 16}
# bits that a matrix may get where a recipe asks for an average
WIDER = (4, 8)
FINER = (3, 4, 5, 6, 8)


def mixed(recipe: Mapping) -> bool:
    """Whether a recipe keeps some matrices wider than its bits."""
    return recipe.get("wider", "none") != "none" or bool(recipe.get("average_bits"))


def widths(recipe: Mapping) -> tuple[int, ...]:
    """Bits that a matrix may be stored in, the fewest first."""
    bits, wider = int(recipe["bits"]), FINER if recipe.get("finer") else WIDER
    return (bits, *(width for width in wider if width > bits)) if recipe.get("average_bits") else (bits,)


def calibrated(recipe: Mapping) -> bool:
    """Whether a recipe needs the config's calibration text."""
    return bool(recipe.get("imatrix") or recipe.get("iterations") or recipe.get("average_bits"))


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    engine: module of ``workflow.tradeoff.engines`` that runs it.
    recipe: how its artifact is made: ``quantizer`` and every setting of it.
    options: what the engine is told beside.
    checkpoint: where a published quantized checkpoint is; empty for what is made here.
    devices: where it runs.
    label: the word of the study for it, for its tables.
    """

    name: str
    engine: str
    recipe: Mapping[str, object]
    options: Mapping[str, object] = field(default_factory=dict)
    checkpoint: Mapping[str, object] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    label: str = ""

    @property
    def quantizer(self) -> str:
        return str(self.recipe["quantizer"])

    @property
    def precision(self) -> str:
        """Of the linear weights: fp32, fp16, bf16, fp8, nf4, fp4, int8, int4, int2-4-8, or ``published``."""
        if self.quantizer == "none":
            return PRECISIONS[self.recipe["dtype"]]
        if self.checkpoint:
            return "published"
        if self.quantizer == "fp8":
            return "fp8"
        if self.recipe.get("average_bits"):
            return f"int{'-'.join(map(str, widths(self.recipe)))}"
        return str(self.recipe.get("type") or f"int{self.bits}")

    @property
    def bits(self) -> int:
        """Bits of a linear weight; 0 of a file that someone published, which says them itself."""
        if self.quantizer == "none":
            return WIDTHS[PRECISIONS[self.recipe["dtype"]]]
        if self.quantizer == "gguf":
            named = re.search(r"\d+", str(self.recipe["type"]))
            return int(named[0]) if named else 0
        return 0 if self.checkpoint else int(self.recipe.get("bits", 8))

    @property
    def mixed(self) -> bool:
        """Whether some matrices are kept wider than ``bits``."""
        return mixed(self.recipe)

    @property
    def quantized(self) -> bool:
        return self.bits < 16

    def stored_in(self, bits: int) -> bool:
        """Whether weights of ``bits`` are what the variant says: its own number or one of the numbers that it mixes,
        or of a published checkpoint fewer than a float's 16.
        """
        if self.recipe.get("average_bits"):
            return bits in widths(self.recipe)
        return bits < 16 if self.checkpoint else bits == self.bits

    @property
    def cache(self) -> bool:
        """Whether past keys and values are kept; without, each token runs the whole sequence again."""
        return bool(self.options.get("cache", True))

    @property
    def cache_type(self) -> str:
        """Type that keys and values are kept in, in the engine's own words; empty where nobody asked for another."""
        options = schema()["engines"][self.engine]["options"]
        told = self.options.get("cache_type")
        return "" if told is None or told == options["cache_type"]["default"] else str(told)

    @property
    def family(self) -> str:
        """What its artifact is made by: ``model`` (the safetensors folder itself), ``onnx``, ``packed``, …"""
        own = schema()["quantizers"][self.quantizer].get("artifact")
        return "checkpoint" if self.checkpoint else own or schema()["engines"][self.engine]["artifact"]

    @property
    def artifact(self) -> str:
        """Name of the folder that it runs: equal for two variants whose files are equal. ``model``: the model's own."""
        if self.checkpoint:
            return f"checkpoint-{self.name}"
        if self.family == "model":
            return "model"
        past = "-kv" if self.cache and self.family not in CACHELESS else ""
        return f"{self.family}-{slug(self.recipe)}{past}"

    @property
    def reference(self) -> str:
        """Why nobody deploys it: it stands beside the others for comparison. Empty for what can be deployed."""
        engine = schema()["engines"][self.engine]
        reasons = [engine.get("reference", "")]
        reasons += [engine["options"][key].get("reference", {}).get(value, "") for key, value in self.options.items()]
        return "; ".join(filter(None, reasons))

    @property
    def deploy(self) -> str:
        """The way it is served, a template of ``report/deploy/``: transformers, vllm, …; empty for a reference."""
        return "" if self.reference else schema()["engines"][self.engine]["deploy"]

    @property
    def environment(self) -> str:
        """The environment of its own that its engine runs in, by name; empty for that of the stages."""
        return schema()["engines"][self.engine].get("environment", "")

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that its engine gets where it is measured and where it is served: of packed files."""
        return {} if self.family == "model" else schema()["engines"][self.engine].get("variables", {})

    @property
    def words(self) -> str:
        """What runs, for people who do not know its name: ``ONNX Runtime, 4-bit weights``."""
        weights = f"{self.bits}-bit weights" if self.bits else "weights as published"
        weights += " and activations" if self.quantizer == "dynamic" else ""
        weights += f" in blocks of {self.recipe['block']}" if "block" in self.recipe else ""
        weights += ", some of 8 bits" if self.recipe.get("wider", "none") != "none" else ""
        if average := self.recipe.get("average_bits"):
            weights = f"weights of {', '.join(map(str, widths(self.recipe)))} bits, {average:g} on average"
        weights += f", keys and values in {self.cache_type}" if self.cache_type else ""
        return f"{schema()['engines'][self.engine]['title']}, {weights}"

    def told(self, bits_per_weight: float | None) -> str:
        """``words``, and how many bits a weight was seen to have on average where the name does not say it."""
        words = self.words
        if bits_per_weight is None or math.isnan(bits_per_weight):
            return words
        if self.bits and bits_per_weight > self.bits + 1:  # as llama.cpp's mixes are where rows do not divide
            words = words.replace(f"{self.bits}-bit weights", f"weights of {self.bits} bits and more")
        return f"{words}, {bits_per_weight:.1f} bits each on average"

    def option(self, key, default=None):
        return self.options.get(key, default)

    def definition(self) -> dict:
        """What makes this variant, in the form that ``define`` takes: equal for equal variants."""
        parts = {"engine": self.engine, "recipe": dict(self.recipe), "options": dict(self.options)}
        return parts | ({"checkpoint": dict(self.checkpoint)} if self.checkpoint else {}) | {"label": self.label}


def slug(recipe: Mapping) -> str:
    """A recipe as part of a folder's name: its quantizer, then each setting that is not the default."""
    if recipe["quantizer"] == "none":
        return PRECISIONS[recipe["dtype"]]
    if recipe["quantizer"] == "gguf":
        return f"{recipe['type']}{'-imatrix' if recipe['imatrix'] else ''}"
    keys = schema()["quantizers"][recipe["quantizer"]]["properties"]
    told = [
        f"{key}.{value}".lower() for key, value in recipe.items() if key in keys and value != keys[key].get("default")
    ]
    return "-".join([recipe["quantizer"], *told])


def build(name: str, given: Mapping, where: str = "") -> Variant:
    """The variant that ``given`` defines, defaults filled in; UserError names the key that is wrong."""
    where = where or f"define.{name}"
    if not NAME.fullmatch(name):
        raise UserError(f"config key {where}: a variant's name is made of a-z, 0-9, '_' and '-', at most 64: rename it")
    known(given, KEYS, where)
    engines = schema()["engines"]
    engine = given.get("engine")
    if engine not in engines:
        raise UserError(f"config key {where}.engine: {engine!r} is no engine: one of {', '.join(engines)}")
    checkpoint = given.get("checkpoint") or {}
    recipe = {"quantizer": "checkpoint"} if checkpoint and "recipe" not in given else given.get("recipe") or {}
    recipe = recipe_of(engine, recipe, f"{where}.recipe")
    if bool(checkpoint) != (recipe["quantizer"] == "checkpoint"):
        raise UserError(
            f"config key {where}: the recipe `checkpoint` and the key `checkpoint` belong together: give both"
        )
    options = chosen(given.get("options") or {}, engines[engine]["options"], f"{where}.options", f"engine {engine}")
    devices = tuple(engines[engine]["devices"])
    return Variant(name, engine, recipe, options, checkpoint, devices, given.get("label") or name)


def presets() -> dict[str, Variant]:
    """The known variants, in the order of tables and figures."""
    table = yaml.safe_load((FOLDER / "presets.yaml").read_text())
    return {name: build(name, given, where=f"workflow/presets.yaml: {name}") for name, given in table.items()}


VARIANTS = presets()
PRESETS = tuple(VARIANTS)


def define(definitions: Mapping[str, Mapping]) -> None:
    """Add variants of a config to VARIANTS; UserError for a preset's name or a mistake in one."""
    for name, given in definitions.items():
        if name in PRESETS:
            raise UserError(f"config key define.{name}: a preset has this name: give yours another")
        VARIANTS[name] = build(name, given)


def flags(*names: str) -> list[str]:
    """The flags that make a stage know the variants ``names``: none for presets."""
    own = {name: VARIANTS[name].definition() for name in sorted(set(names)) if name not in PRESETS}
    return ["--define", json.dumps(own, sort_keys=True)] if own else []


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Let a stage take ``--define``, before the flags whose values are variants."""

    def defined(text: str) -> dict:
        definitions = json.loads(text)
        define(definitions)
        return definitions

    parser.add_argument("--define", type=defined, default={}, metavar="JSON", help="variants of the config, by name")
