"""Cells as they are at a load: the summary's rows with the speed, waits and memory that were measured there."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff import stats
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.loads import POINT, STANDARD, Load, find
from workflow.tradeoff.words import number

ENDS = ("", "_low", "_high")
# of a summary's row: the name that loads.csv has for it
TAKEN = {
    **{f"decode_tokens_per_s{end}": f"tokens_per_s_each{end}" for end in ENDS},
    **{f"{name}{end}": f"{name}{end}" for name in ("speedup", "ttft_ms", "ttft_ratio", "itl_p50_ms") for end in ENDS},
    **{
        name: name for name in ("speed_verdict", "memory_mb", "cache_mb", "peak_mb", "load_peak_mb", "status", "reason")
    },
}
THROUGHPUT = tuple(f"{name}{end}" for name in ("throughput_tokens_per_s", "throughput_ratio") for end in ENDS)


def read(tables: Path) -> list[dict]:
    """The rows of loads.csv; none in the tables of an older run."""
    path = tables / "loads.csv"
    if not path.is_file():
        return []
    words = ("status", "reason", "speed_verdict")
    return [
        {name: None if name in words and pd.isna(value) else value for name, value in row.items()}
        for row in pd.read_csv(path).to_dict("records")
    ]


def known(table: Sequence[Mapping]) -> list[Load]:
    """The loads that were measured, the standard one first."""
    return list(dict.fromkeys(Load(row["load"], *(int(row[key]) for key in POINT)) for row in table))


def load_of(scenario: Scenario, table: Sequence[Mapping]) -> Load | None:
    """The load that a scenario asks for; None for the standard one. UserError for one that was not measured."""
    if scenario.load is None or scenario.load == STANDARD:
        return None
    found = find(scenario.load, known(table) or [Load(STANDARD, 1, 0, 0)], f"scenario {scenario.name}")
    return None if found.name == STANDARD else found


def at(rows: Sequence[Mapping], table: Sequence[Mapping], load: Load | None, objective: str) -> list[Mapping]:
    """Rows of the summary as they are at a load (None: the standard one), for an objective.

    For ``throughput``, the ratio to the baseline and its verdict are those of the throughput.
    """
    name = STANDARD if load is None else load.name
    own = {(row["model"], row["variant"]): row for row in table if row["load"] == name}
    weights = {row["model"]: row["weight_mb"] for row in rows if row["variant"] == row["baseline"]}
    found = []
    for row in rows:
        taken = own.get((row["model"], row["variant"]))
        unknown = {} if objective != "throughput" else dict.fromkeys(THROUGHPUT, math.nan)
        new = {**row, **({name: taken[name] for name in THROUGHPUT} if taken else unknown)}
        if taken and load is not None:
            new |= {name: taken[column] for name, column in TAKEN.items()}
            many = f" of {load.sequences} sequences at once" if load.sequences > 1 else ""
            new["rate"] = f"{number(taken['tokens_per_s'])} tokens/s{many}"
            if math.isnan(row["memory_reduction_pct"]) and weights.get(row["model"]):
                # a cell that was disturbed at the standard load claims nothing in the summary
                new["memory_reduction_pct"] = 100 * (1 - taken["weight_mb"] / weights[row["model"]])
        found.append(by_throughput(new) if objective == "throughput" else new)
    return found


def by_throughput(row: Mapping) -> dict:
    """A row whose speed against the baseline is that of whole answers, prompts included, of all sequences."""
    ratio = {f"speedup{end}": row[f"throughput_ratio{end}"] for end in ENDS}
    verdict = None if math.isnan(ratio["speedup"]) else stats.speed_verdict(ratio["speedup_low"], ratio["speedup_high"])
    if row["variant"] == row["baseline"]:
        verdict = row["speed_verdict"]
    rate = f"{number(row['throughput_tokens_per_s'])} tokens/s in all, prompts included"
    return {**row, **ratio, "speed_verdict": verdict, "rate": rate}


def batch(table: Sequence[Mapping]) -> Load | None:
    """The largest batch at which any cell has a figure; None where none was measured."""
    figures = {row["load"] for row in table if row["status"] == "ok"}
    batches = [load for load in known(table) if load.sequences > 1 and load.name in figures]
    return max(batches, key=lambda load: (load.sequences, load.prompt_tokens), default=None)
