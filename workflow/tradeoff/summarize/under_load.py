"""Every cell at every load, out of raw samples: speed of all sequences and of one, latency, memory, roofline.

The standard load is among them, with the figures of the summary. A ratio is against the baseline at the same load.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from workflow.tradeoff import samples, stats
from workflow.tradeoff.loads import POINT, STANDARD
from workflow.tradeoff.summarize import rows, rows_speed
from workflow.tradeoff.summarize.cells import Cell
from workflow.tradeoff.summarize.rows_speed import MEGA

ENDS = ("", "_low", "_high")
BATCH = ("tokens_per_s", "tokens_per_s_each", "throughput_tokens_per_s")
RATIOS = ("speedup", "throughput_ratio", "ttft_ratio")
COLUMNS = (
    "model", "variant", "baseline", "load", *POINT, "status",
    *(name + end for name in ("tokens_per_s", "tokens_per_s_each", "speedup") for end in ENDS), "speed_verdict",
    *(name + end for name in ("throughput_tokens_per_s", "throughput_ratio", "ttft_ms", "ttft_ratio") for end in ENDS),
    *(f"itl_p{percent}_ms{end}" for percent in (50, 90, 99) for end in ENDS),
    "weight_mb", "cache_mb", "memory_mb", "load_peak_mb", "peak_mb", "bytes_per_step", "mbu_pct", "roofline_label",
    "half_width_pct", "replicates", "turns", "retaken", "pairing", "noisy", "joules_per_token", "watts", "reason",
)  # fmt: skip
TAKEN = (
    "itl_",
    "ttft_",
    "speedup",
    "throughput_ratio",
    "speed_verdict",
    "half_width_pct",
    "replicates",
    "turns",
    "retaken",
    "pairing",
)
SLOWER = 1.25  # a step of a batch that takes longer than that of one sequence by this is not held back by launches


def table(cells: Sequence[Cell], lines: Mapping[tuple[str, str], Mapping], limits: Mapping[str, float]) -> pd.DataFrame:
    """One row per cell and load; lines: the summary's rows by cell. limits: of the gates.

    What a gate refuses claims no speed at any load; what failed at one load has the others' figures.
    """
    known = loads_of(cells)
    baselines = {cell.model: cell for cell in cells if cell.variant == cell.baseline}
    found = []
    for cell in cells:
        line, base = lines[cell.key], baselines.get(cell.model)
        refused = refusal(cell, line, limits)
        comparable = not rows.differences(cell, base)
        entries = {entry["name"]: entry for entry in entries_of(cell)}
        for load in known:
            head = {"model": cell.model, "variant": cell.variant, "baseline": cell.baseline, "load": load["name"]}
            head |= {key: load[key] for key in POINT}
            row = dict.fromkeys(COLUMNS) | head
            row |= figures(cell, load, entries.get(load["name"]), refused, comparable, line)
            found.append(row)
    return pd.DataFrame(found, columns=list(COLUMNS))


def loads_of(cells: Iterable[Cell]) -> list[dict]:
    """The loads that any cell was measured at, the standard one first: name and point."""
    found: dict[str, dict] = {}
    for cell in cells:
        for entry in entries_of(cell):
            found.setdefault(entry["name"], {key: entry[key] for key in ("name", *POINT)})
    return list(found.values())


def entries_of(cell: Cell) -> list[dict]:
    """What a speed file has of each load, in the form of its list ``loads``."""
    protocol = (cell.speed.get("protocols") or {}).get("standard")
    if protocol is None:
        return []
    keys = ("prompt_tokens", "new_tokens", "pairing", "replicates")
    first = {"name": STANDARD, "sequences": 1, **{key: protocol[key] for key in keys}}
    first |= {"status": cell.speed["status"], "reason": cell.speed.get("reason") or ""}
    return [first | {"memory": cell.speed.get("memory") or {}}, *cell.speed.get("loads", [])]


def refusal(cell: Cell, line: Mapping, limits: Mapping[str, float]) -> tuple[str, str] | None:
    """(status, reason) where nothing is claimed of a cell at any load: it failed, or does not pass a gate."""
    if line["status"] == "disturbed":  # of the standard load alone; the gates were not asked
        return rows.judge(cell, line, limits)
    return None if line["status"] == "ok" else (line["status"], line["reason"] or "")


def figures(
    cell: Cell,
    load: Mapping,
    entry: Mapping | None,
    refused: tuple[str, str] | None,
    comparable: bool,
    line: Mapping,
) -> dict:
    """Status, and what a cell claims at a load."""
    if refused or entry is None:
        status, reason = refused or ("not_measured", "")
        return {"status": status, "reason": reason or None}
    row = {"status": entry["status"], "reason": entry["reason"] or None}
    if entry["status"] not in ("ok", "disturbed"):
        return row
    row |= memory(cell, entry)
    if entry["status"] == "disturbed":
        return row
    speed = as_speed(cell, entry)
    taken = rows_speed.speed_columns(speed)
    row |= {name: value for name, value in taken.items() if name in COLUMNS and name.startswith((*TAKEN, "noisy"))}
    many = load["sequences"]
    for end in ENDS:
        each = taken.get(f"decode_tokens_per_s{end}")
        row |= {f"tokens_per_s_each{end}": each, f"tokens_per_s{end}": None if each is None else many * each}
    own = rows_speed.replicates(speed, "standard", "cell")
    energy = rows_speed.energy_columns(own, None, many)
    row |= {name: energy.get(name) for name in ("joules_per_token", "watts")}
    values = [[many * samples.throughput(sample) for sample in run["samples"]] for run in own]
    row |= rows_speed.triple("throughput_tokens_per_s", stats.median_interval(values)) if values else {}
    row |= roofline(cell, entry, row, line)
    if not comparable:
        row |= dict.fromkeys(f"{name}{end}" for name in RATIOS for end in ENDS) | {"speed_verdict": None}
    return row


def as_speed(cell: Cell, entry: Mapping) -> dict:
    """A load's samples in the form of a speed file's standard protocol, which ``rows_speed`` reads."""
    protocol = cell.speed["protocols"]["standard"]
    taken = {key: entry[key] for key in ("replicates", "pairing")}
    return {
        **{key: cell.speed[key] for key in ("variant", "baseline")},
        "protocols": {"standard": {**{key: protocol[key] for key in ("pairs", "precision")}, **taken}},
    }


def memory(cell: Cell, entry: Mapping) -> dict:
    """MB of weights, of keys and values of all sequences, and the process's peaks at a load."""
    own, taken = cell.speed.get("memory") or {}, entry["memory"]
    sizes = {
        "weight_mb": own.get("weight_bytes"), "cache_mb": taken.get("cache_bytes"),
        "load_peak_mb": taken.get("load_peak_bytes"), "peak_mb": taken.get("decode_peak_bytes"),
    }  # fmt: skip
    row = {name: None if size is None else size / MEGA for name, size in sizes.items()}
    row["memory_mb"] = None if row["weight_mb"] is None else row["weight_mb"] + (row["cache_mb"] or 0)
    return row


def roofline(cell: Cell, entry: Mapping, row: Mapping, line: Mapping) -> dict:
    """Bytes that a decode step reads, its bandwidth utilization, and what holds it back.

    A step reads the weights once, whatever the number of sequences, and each sequence's keys and values (S. Williams,
    A. Waterman and D. Patterson, "Roofline", CACM 2009: bytes fixed, operations by the batch, so a larger batch turns
    a bandwidth-bound step compute-bound). Of a mixture of experts it is a lower bound: more tokens ask more experts.
    """
    one, bandwidth = rows_speed.bytes_per_token(cell), (cell.speed.get("bandwidth") or {}).get("bytes_per_s")
    if one is None or not bandwidth or not row["tokens_per_s_each"]:
        return {}
    standard = (cell.speed.get("memory") or {}).get("cache_bytes") or 0
    read = one - standard + (entry["memory"].get("cache_bytes") or 0)
    mbu = 100 * read * row["tokens_per_s_each"] / bandwidth
    label = rows_speed.roofline_label(mbu, cell, cell.speed.get("proof") or {})
    alone = line.get("itl_p50_ms")
    if label.startswith("launch-bound") and alone and row["itl_p50_ms"] > SLOWER * alone:
        label = "compute-bound"
    return {"bytes_per_step": read, "mbu_pct": mbu, "roofline_label": label}
