"""Tables of a study of several kinds of machine: those of each kind, one under the other, with the kind as a column.

Each kind is summarized for itself, so that no ratio crosses two machines. Accuracy is that of the kind that the config
has it taken on (``scored_by``), which each row names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.summarize import build, cells, details, gates, notes
from workflow.tradeoff.summarize.cells import Cell

ONCE = "resources"  # of the workflow, not of a cell
FACTS = {  # of machines.csv: where they stand in an environment
    "cpu": ("machine", "cpu"),
    "cores": ("machine", "cores"),
    "memory_gb": ("machine", "memory_gb"),
    "gpu": ("gpu", "name"),
    "gpu_memory_gb": ("gpu", "memory_gb"),
    "capability": ("gpu", "capability"),
}
SHARED = (
    "scored_on is the kind of machine on which a row's accuracy was taken: where it is another one, the same bytes "
    "were scored there."
)


def read(
    speed: Sequence[Path | str], quality: Sequence[Path | str], manifests: Sequence[Path | str], kinds: Mapping
) -> dict[str, list[Cell]]:
    """The cells of each kind; UserError for a file in the folder of a kind that the config does not name.

    kinds: {kind: {"scored_by": kind, …}}. Files lie in speed/{kind}/{model}/ and quality/{kind}/{model}/.
    """
    by_kind: dict[str, dict[str, list]] = {"speed": {}, "quality": {}}
    known = {*kinds, *(kind["scored_by"] for kind in kinds.values())}
    for name, paths in (("speed", speed), ("quality", quality)):
        for path in map(Path, paths):
            if path.parts[-3] not in known:
                raise UserError(f"{path} lies in the folder of no kind of machine of the config: {', '.join(known)}")
            by_kind[name].setdefault(path.parts[-3], []).append(path)
    return {
        name: cells.read(by_kind["speed"].get(name, []), by_kind["quality"].get(kind["scored_by"], []), manifests)
        for name, kind in kinds.items()
    }


def summarize(
    groups: Mapping[str, Sequence[Cell]],
    kinds: Mapping[str, Mapping],
    benchmarks: Sequence[Path | str] = (),
    convention: str | None = None,
    kl_most: float = gates.KL_MOST,
    delta_most: float = gates.DELTA_NLL_MOST,
) -> tuple[dict[str, pd.DataFrame], dict]:
    """The tables by name, ``machines`` among them, and their notes."""
    every = [cell for own in groups.values() for cell in own]
    convention = build.main_convention(every, convention)
    parts = {name: build.summarize(own, (), convention, kl_most, delta_most)[0] for name, own in groups.items()}
    for name, part in parts.items():
        scored = part["summary"]["accuracy_status"] != "not_evaluated"
        place = part["summary"].columns.get_loc("accuracy_status") + 1
        part["summary"].insert(place, "scored_on", scored.map({True: kinds[name]["scored_by"], False: None}))
    found = {name: stacked({kind: part[name] for kind, part in parts.items()}) for name in build.TABLES if name != ONCE}
    found[ONCE] = details.resources(benchmarks, {cell.model: cell.facts.get("parameters") for cell in every})
    found["machines"] = table(groups, kinds)
    told = notes.build(every, found["summary"])
    told["summary"]["note"] += f" {SHARED}"
    told["machines"] = {
        "title": "Kinds of machine",
        "note": "What the cells themselves found where they ran. No ratio crosses two kinds.",
        "protocol": None,
    }
    return found, told


def stacked(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables one under the other with their kind in the first column; columns that one lacks are empty there."""
    given = {kind: part for kind, part in parts.items() if len(part)} or parts
    columns = list(dict.fromkeys(name for part in given.values() for name in part.columns))
    # as records: columns that are empty in one part keep the type that they have in the other
    rows = [{"machine": kind, **row} for kind, part in given.items() for row in part.to_dict("records")]
    return pd.DataFrame(rows, columns=["machine", *columns])


def table(groups: Mapping[str, Sequence[Cell]], kinds: Mapping[str, Mapping]) -> pd.DataFrame:
    """One row a kind: what the config says of it, what its cells found, how many they are, in how many environments."""
    rows = []
    for name, own in groups.items():
        ran = [cell.speed for cell in own if cell.speed.get("status") in ("ok", "disturbed")]
        where = [speed.get("environment") or {} for speed in ran]
        first = where[0] if where else {}
        kind = kinds[name]
        rows.append(
            {
                "machine": name,
                "device": kind["device"],
                "threads": first.get("threads", kind.get("threads")),
                **{column: (first.get(part) or {}).get(key) for column, (part, key) in FACTS.items()},
                "hardware": kind.get("hardware"),
                "price_per_hour": kind.get("price_per_hour"),
                "scored_on": kind["scored_by"],
                "cells": len(own),
                "measured": len(ran),
                "environments": len({entry.get("digest") for entry in where}),
            }
        )
    return pd.DataFrame(rows)


def environments(groups: Mapping[str, Sequence[Cell]]) -> dict[str, dict]:
    """Of each kind the environment of its first cell that ran there; {} where none did."""
    return {
        name: next((cell.speed["environment"] for cell in own if cell.speed.get("status") in ("ok", "disturbed")), {})
        for name, own in groups.items()
    }
