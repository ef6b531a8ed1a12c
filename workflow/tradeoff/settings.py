"""What an engine and a quantizer can be told: the schema of it, defaults filled in, and each mistake in one line."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import yaml

from workflow.tradeoff.errors import UserError

SCHEMA = Path(__file__).parents[1] / "schemas" / "variants.yaml"


@cache
def schema() -> dict:
    """Engines and quantizers: ``workflow/schemas/variants.yaml``."""
    return yaml.safe_load(SCHEMA.read_text())


def recipe_of(engine: str, given: Mapping, where: str) -> dict:
    """A recipe for an engine, every setting of its quantizer filled in; UserError for one that is wrong or missing."""
    taken = schema()["engines"][engine]
    if not isinstance(given, Mapping):
        raise UserError(f"config key {where}: give a mapping, not {given!r}")
    quantizer = given.get("quantizer")
    if quantizer not in taken["quantizers"]:
        raise UserError(
            f"config key {where}.quantizer: {quantizer!r} is not made for the engine {engine}: "
            f"one of {', '.join(taken['quantizers'])}"
        )
    keys = schema()["quantizers"][quantizer]["properties"]
    rest = {key: value for key, value in given.items() if key != "quantizer"}
    recipe = {"quantizer": quantizer, **chosen(rest, keys, where, f"quantizer {quantizer}")}
    for key, values in schema()["quantizers"][quantizer].get("needs", {}).items():
        for other, value in values.get(recipe.get(key), {}).items():
            if recipe[other] != value:
                raise UserError(f"config key {where}.{key}: {recipe[key]} needs {other}: {value}, not {recipe[other]}")
    for key, values in taken.get("only", {}).items():
        if key in recipe and recipe[key] not in values:
            able = ", ".join(map(str, values))
            raise UserError(f"config key {where}.{key}: the engine {engine} has no {recipe[key]}: one of {able}")
    return recipe


def chosen(given: Mapping, keys: Mapping, where: str, what: str) -> dict:
    """Every setting of ``keys`` that has a meaning, given or by default; UserError for one that is wrong or missing."""
    known(given, keys, where)
    found: dict = {}
    for key, part in keys.items():
        unmet = [f"{other}: {value}" for other, value in part.get("when", {}).items() if found.get(other) != value]
        if unmet:
            if key in given:
                raise UserError(f"config key {where}.{key}: {what} takes it only with {', '.join(unmet)}: remove it")
            continue
        if key not in given and "default" not in part:
            raise UserError(f"config key {where}.{key} is missing: {what} needs it. {part['description']}")
        value = given.get(key, part.get("default"))
        _bound(value, part, f"{where}.{key}")
        if "above" in part and value and value <= found[part["above"]]:
            least = f"{part['above']}: {found[part['above']]}"
            raise UserError(f"config key {where}.{key}: {value} is not above {least}: give more, or 0 for none")
        if "beside" in part and value and not found[part["beside"]]:
            raise UserError(f"config key {where}.{key}: {what} takes it only with {part['beside']}: remove it")
        found[key] = float(value) if part["type"] == "number" else value
    return found


def known(given: object, keys: Iterable[str], where: str) -> None:
    """UserError unless ``given`` is a mapping whose keys are all among ``keys``."""
    if not isinstance(given, Mapping):
        raise UserError(f"config key {where}: give a mapping, not {given!r}")
    if unknown := [key for key in given if key not in keys]:
        raise UserError(f"config key {where}.{unknown[0]} is unknown: known are {', '.join(keys) or 'none'}")


def _bound(value: object, part: Mapping, where: str) -> None:
    """UserError unless ``value`` has the type of ``part`` and lies within its bounds."""
    kinds = {"integer": int, "number": (int, float), "boolean": bool, "string": str}
    right = isinstance(value, kinds[part["type"]]) and (part["type"] == "boolean" or not isinstance(value, bool))
    if not right:
        raise UserError(f"config key {where}: {value!r} is no {part['type']}: correct it. {part['description']}")
    if "enum" in part and value not in part["enum"]:
        raise UserError(f"config key {where}: {value!r} is unknown: one of {', '.join(map(str, part['enum']))}")
    if not part.get("minimum", value) <= value <= part.get("maximum", value):
        low, high = part.get("minimum", "any"), part.get("maximum", "any")
        raise UserError(f"config key {where}: {value} is out of bounds: {low} to {high}. {part['description']}")
