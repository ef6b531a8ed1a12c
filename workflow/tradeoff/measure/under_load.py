"""A cell at further loads: each has pairs of fresh processes of its own, and what fails at one fails there alone."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.loads import Load
from workflow.tradeoff.measure import pairs
from workflow.tradeoff.measure.pairs import BaselineFailed, Plan
from workflow.tradeoff.measure.process import Runner


def measure(
    cell: Runner, baseline: Runner | None, plan: Plan, loads: Sequence[Load], apart: str, again: str
) -> list[dict]:
    """Raw processes of a cell at each load, as ``pairs.measure`` takes them by ``plan`` (its load apart).

    Each entry has the load, ``status`` and ``reason``, and where it ran ``replicates``, ``pairing``,
    ``pairing_reason`` and ``memory``: peaks of a process that has the machine to itself, and ``cache_bytes`` of all
    sequences. apart: as in ``pairs.measure``. again: what to do about a disturbed one, to follow the reason.
    """
    found = []
    for load in loads:
        print(f"load {load.name}: {load.words}", file=sys.stderr, flush=True)
        try:
            taken = _at(cell, baseline, replace(plan, load=load.point, proof=False, study_runs=0), apart, again)
        except CellFailure as failed:
            print(f"load {load.name}: {failed}", file=sys.stderr, flush=True)
            taken = {"status": failed.status, "reason": failed.reason}
        found.append({**asdict(load), **taken})
    return found


def _at(cell: Runner, baseline: Runner | None, plan: Plan, apart: str, again: str) -> dict:
    """One load; the cell without a ratio where it runs and its baseline does not."""
    without = ""
    try:
        taken = pairs.measure(cell, baseline, plan, apart)
    except BaselineFailed as failed:
        baseline, without = None, f"no ratio: {failed}"
        taken = pairs.measure(cell, None, plan, apart)
    disturbed = pairs.disturbed(taken["processes"], plan, alone=baseline is None)
    return {
        "status": "disturbed" if disturbed else "ok",
        "reason": disturbed + again if disturbed else without,
        **{key: taken[key] for key in ("pairing", "pairing_reason", "memory")},
        "replicates": [{key: value for key, value in entry.items() if key != "study"} for entry in taken["processes"]],
    }
