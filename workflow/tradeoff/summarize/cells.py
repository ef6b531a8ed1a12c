"""Reading what measure, evaluate and fetch wrote, and putting the cells in their one order."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.variants import VARIANTS, Variant

SCHEMAS = {"speed": 2, "quality": 1}
TIMES = ("ttft_s", "itl_s", "total_s")  # of raw samples


@dataclass
class Cell:
    """One model × one variant: what was written about it; an empty dict where a stage gave no file."""

    model: str
    variant: str
    baseline: str
    speed: dict = field(default_factory=dict)
    quality: dict = field(default_factory=dict)
    tokens: Path | None = None  # the npz beside the quality file
    facts: dict = field(default_factory=dict)  # the model's manifest

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.variant

    @property
    def spec(self) -> Variant:
        return VARIANTS[self.variant]

    def nll(self, convention: str) -> tuple[np.ndarray, np.ndarray] | None:
        """NLL (n,) float64 in nats and block index (n,) of a convention's tokens; None where not evaluated."""
        if self.tokens is None or not self.tokens.is_file():
            return None
        with np.load(self.tokens) as arrays:
            if f"{convention}/nll" not in arrays:
                return None
            return arrays[f"{convention}/nll"].astype(np.float64), arrays[f"{convention}/block"]


def read(speed: Iterable[Path | str], quality: Iterable[Path | str], manifests: Iterable[Path | str]) -> list[Cell]:
    """The cells of a study: models in the order of the files, variants in the order of the registry.

    Raises UserError for a file of another schema, an unknown variant, or a cell that is given twice.
    """
    facts = {Path(path).parent.name: read_json(path) for path in manifests}
    cells: dict[tuple[str, str], Cell] = {}
    for kind, paths in (("speed", speed), ("quality", quality)):
        for path in map(Path, paths):
            data = _checked(path, kind)
            key = data["model"], data["variant"]
            cell = cells.setdefault(key, Cell(*key, data["baseline"], facts=facts.get(key[0], {})))
            if getattr(cell, kind):
                raise UserError(f"{path}: the {kind} of {key[0]}/{key[1]} is given twice: give each cell's file once")
            setattr(cell, kind, data)
            if kind == "quality":
                cell.tokens = path.with_suffix(".npz")
    if not cells:
        raise UserError("no cell to summarize: give at least one file to --speed or --quality")
    models = list(dict.fromkeys(model for model, _ in cells))
    order = list(VARIANTS)
    return sorted(cells.values(), key=lambda cell: (models.index(cell.model), order.index(cell.variant)))


def _checked(path: Path, kind: str) -> dict:
    try:
        data = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and run again") from error
    if data.get("schema") != SCHEMAS[kind]:
        raise UserError(f"{path} has schema {data.get('schema')}, not {SCHEMAS[kind]}: delete it and run again")
    if missing := [name for name in ("model", "variant", "baseline", "status") if name not in data]:
        raise UserError(f"{path} has no {', '.join(missing)}: give what measure or evaluate wrote")
    if data["variant"] not in VARIANTS:
        raise UserError(f"{path}: unknown variant {data['variant']!r}: one of {', '.join(VARIANTS)}")
    if kind == "speed" and (wrong := _not_a_time(data)):
        raise UserError(f"{path} has a time that none can be, {wrong}: delete it and run again")
    return data


def _not_a_time(data, key: str = "") -> str:
    """The first of the times in raw facts that is not above zero, in words; empty where all are."""
    if isinstance(data, dict):
        return next(filter(None, (_not_a_time(value, name) for name, value in data.items())), "")
    if isinstance(data, list):
        return next(filter(None, (_not_a_time(value, key) for value in data)), "")
    return f"{key} {data}" if key in TIMES and not (isinstance(data, int | float) and 0 < data < math.inf) else ""
