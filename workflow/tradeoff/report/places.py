"""What a report and its figures call a model that was measured on several kinds of machine: ``llama on t4``.

A model on a machine has a baseline, a front and answers of its own, so that pages and panels by model are by both.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff import tables
from workflow.tradeoff.files import read_json

CELLS = ("cell", "fastest_cell", "smallest_cell")  # of decision.json: words that begin with a model's name


def read(path: Path, needs: Iterable[str] = (), **how) -> pd.DataFrame:
    """A table, as ``tables`` reads it; where it has ``machine`` and ``model``, the model's name says both, and the
    column is left out.
    """
    table = tables.read(path, needs, **how)
    if not {"machine", "model"} <= set(table.columns):
        return table
    known = table["model"].notna() & table["machine"].notna()
    both = table["model"].astype(str) + " on " + table["machine"].astype(str)
    return table.assign(model=both.where(known, table["model"])).drop(columns="machine")


def folded(decision: Mapping) -> dict:
    """decision.json with the models' names of ``read``; that of a study of one machine as it is."""
    return {
        name: [_named(entry) for entry in part] if isinstance(part, list) else part for name, part in decision.items()
    }


def _named(entry):
    if not isinstance(entry, Mapping) or not entry.get("machine"):
        return entry
    found = dict(entry)
    if entry.get("model"):
        found["model"] = f"{entry['model']} on {entry['machine']}"
    for name in CELLS:
        if entry.get(name):
            found[name] = f"{entry['machine']}: {entry[name]}"
    return found


def deployed(paths: Sequence[Path]) -> list[dict]:
    """The entries of deploy.json; of several kinds of machine, of deploy/{kind}/deploy.json, named as by ``read``."""
    if len(paths) == 1 and paths[0].parent.name == "deploy":
        return read_json(paths[0])
    return [
        _named({**entry, "machine": path.parent.name, "readme": f"{path.parents[1].name}/{entry['readme']}"})
        for path in paths
        for entry in read_json(path)
    ]
