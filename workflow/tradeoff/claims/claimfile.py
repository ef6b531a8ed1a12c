"""Statements of a study as data: config/claims.yaml and config/reference.yaml, and what a printed number allows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.variants import VARIANTS

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "claims.schema.yaml"
COMPARISONS = ("greater", "no_less", "less")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# outward, so that binary fractions at the edge of an interval never refute a statement
SLACK = 1e-9


@dataclass(frozen=True)
class Interval:
    """All numbers from ``low`` to ``high``, both included."""

    low: float
    high: float

    def meets(self, other: "Interval") -> bool:
        return self.low <= other.high + self._slack(other) and other.low <= self.high + self._slack(other)

    def _slack(self, other: "Interval") -> float:
        return SLACK * max(abs(self.low), abs(self.high), abs(other.low), abs(other.high))


@dataclass(frozen=True)
class Claim:
    """One statement. Fields as in workflow/schemas/claims.schema.yaml; ``unit`` comes from its metric."""

    id: str
    line: int
    section: str
    quote: str
    model: str
    variant: str | None
    metric: str
    unit: str
    value: float | tuple[float, float] | None
    kind: str
    protocol: str | None = None
    printed_as: str | None = None
    basis: str | None = None
    restates: str | None = None
    follows: dict[str, list] = field(default_factory=dict)

    @property
    def precision(self) -> str | None:
        return VARIANTS[self.variant].precision if self.variant else None

    @property
    def values(self) -> tuple[float, ...]:
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @property
    def printed(self) -> tuple[str, ...]:
        """Its numbers as they stand in the quote, decimals and all."""
        return tuple(text for value in self.values for text in [_as_printed(self.quote, value)])

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """For each number, all values that print like it: a printed 0.65 may be 0.645 to 0.655."""
        return tuple(rounding(text) for text in self.printed)

    @property
    def interval(self) -> Interval:
        return self.intervals[0]

    @property
    def parts(self) -> list[str]:
        """Ids of the claims that this one is worked out from, each once, in order."""
        found = [self.restates] if self.restates else []
        for items in self.follows.values():
            for item in items:
                found += item if isinstance(item, list) else [item]
        return list(dict.fromkeys(found))

    @property
    def foundation(self) -> list[str]:
        """The parts that must be sound for the claim to be: of a comparison the first, not the rivals it beats."""
        rivals = {item for name in COMPARISONS for item in self.follows.get(name, [])[1:]}
        return [part for part in self.parts if part not in rivals]


def rounding(text: str) -> Interval:
    """The values that round to the printed number ``text``."""
    number = text.replace(",", "")
    decimals = len(number.partition(".")[2])
    half = 0.5 * 10**-decimals
    return Interval(float(number) - half, float(number) + half)


def _as_printed(quote: str, value: float) -> str:
    for text in NUMBER.findall(quote):
        if float(text.replace(",", "")) == abs(value):
            return text
    raise UserError(
        f"config/claims.yaml: the number {value} does not stand in the quote {quote!r}: correct one of them"
    )


def load(path: Path | str) -> tuple[dict, dict[str, Claim]]:
    """The whole file, and its claims by id in the order of the document.

    Raises UserError when it does not fit the schema, an id is used twice or is unknown, or a variant or metric is.
    """
    import jsonschema

    data = read_yaml(path)
    schema = yaml.safe_load(SCHEMA.read_text())
    error = next(iter(jsonschema.Draft7Validator(schema).iter_errors(data)), None)
    if error:
        where = "/".join(str(step) for step in error.absolute_path)
        raise UserError(f"{path}: {where}: {error.message[:200]}: correct it as {SCHEMA.name} says")
    claims: dict[str, Claim] = {}
    for claim in _flatten(data):
        if claim.id in claims:
            raise UserError(f"{path}: the id {claim.id} is used twice: give one of them another name")
        if claim.variant is not None and claim.variant not in VARIANTS:
            raise UserError(f"{path}: {claim.id}: unknown variant {claim.variant!r}: one of {', '.join(VARIANTS)}")
        claims[claim.id] = claim
    for claim in claims.values():
        unknown = [part for part in claim.parts if part not in claims]
        if unknown:
            raise UserError(f"{path}: {claim.id} rests on {unknown[0]}, which is no claim: correct the id")
    return data, claims


def _flatten(data: dict) -> Iterator[Claim]:
    for section in data["sections"]:
        for line in section["lines"]:
            for entry in line["claims"]:
                if entry["metric"] not in data["metrics"]:
                    raise UserError(f"claim {entry['id']}: unknown metric {entry['metric']!r}: add it under metrics")
                value = entry.get("value")
                about = {"model": line["model"], "variant": line.get("variant"), **entry}
                about["value"] = tuple(value) if isinstance(value, list) else value
                yield Claim(
                    **about, line=line["line"], section=section["title"], unit=data["metrics"][entry["metric"]]["unit"]
                )


def reference(path: Path | str, claims: dict[str, Claim]) -> dict:
    """config/reference.yaml; UserError when a claim names a model or protocol that it lacks."""
    data = read_yaml(path)
    for claim in claims.values():
        if claim.model not in data["models"] and claim.model not in data["groups"]:
            raise UserError(f"{path}: no model or group {claim.model!r}, which claim {claim.id} speaks of: add it")
        if claim.protocol is not None and claim.protocol not in data["protocols"]:
            raise UserError(f"{path}: no protocol {claim.protocol!r}, which claim {claim.id} names: add it")
    return data


def members(model: str, reference: dict) -> list[str]:
    """The models that a claim's ``model`` stands for: itself, or those of a group."""
    return [model] if model in reference["models"] else list(reference["groups"][model])


def read_yaml(path: Path | str) -> dict:
    try:
        return yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: give the path of the file in config/") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
