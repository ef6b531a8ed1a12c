"""Say which variant to deploy, from the tables and their uncertainty: the parts of decision.json, and the answer."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from workflow.tradeoff import tables as tabular
from workflow.tradeoff.decide import advice, costs, headline, refusals, under_load
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.decide.pareto import front
from workflow.tradeoff.decide.scenarios import answer
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file, write_json
from workflow.tradeoff.variants import VARIANTS
from workflow.tradeoff.words import OBJECTIVES

# the study's four
DEFAULT_SCENARIOS = {
    "memory-constrained": {"objective": "memory", "max_degradation_pct": 10},
    "speed-critical": {"objective": "speed", "max_degradation_pct": 10},
    "balanced": {"objective": "balanced", "max_degradation_pct": 5},
    "small-model": {"objective": "speed", "max_degradation_pct": 2, "max_parameters": 1_000_000_000},
}
BOUNDS = [1, 5, 10]
# columns that tables of an older run do not have
LATER = (
    "bits_per_weight",
    "cache_tokens",
    "baseline_tokens_per_s",
    *(f"throughput_ratio{end}" for end in under_load.ENDS),
)
FIGURES = ("decode_tokens_per_s", "speedup", "memory_mb", "peak_mb")
# columns of the summary without which nothing is said
NEEDS = ("model", "variant", "baseline", "status", "reason", "device", *FIGURES)
OF_MACHINES = ("costs", "study_hardware")  # of a study of several kinds of machine
CSVS = ("pareto", "scenarios", "selection_matrix", "cost_benefit", "quality_aware", "use_cases")
EMPTY = {"pareto": ["model", "variant", "on_front", "dominated_by"], "costs": list(costs.COLUMNS)}


def read(tables: Path) -> tuple[list[dict], pd.DataFrame]:
    """The summary's rows, with NaN and None where there is nothing, and the resources. UserError when absent."""
    path = tables / "summary.csv"
    summary = tabular.read(path, NEEDS)
    tabular.check_numbers(summary, FIGURES, path)
    if unknown := sorted(set(summary["variant"].astype(str)) - set(VARIANTS)):
        raise UserError(f"{path}: unknown variant {', '.join(unknown)}: --define says what a config's own ones are")
    words = {
        "model",
        "variant",
        "baseline",
        "status",
        "reason",
        "device",
        "size_class",
        "speed_verdict",
        "quality_verdict",
        "machine",
        "weights_from",
    }
    rows = [
        {name: (None if name in words and pd.isna(value) else value) for name, value in row.items()}
        for row in summary.to_dict("records")
    ]
    for row in rows:  # tables of an older run do not say
        row.setdefault("deployable", "no" if VARIANTS[row["variant"]].reference else "yes")
        row.setdefault("weights_from", None)
        for name in LATER:
            row.setdefault(name, math.nan)
    resources = tables / "resources.csv"
    empty = pd.DataFrame(columns=["rule", "of", "s"])
    return rows, tabular.read(resources) if resources.is_file() else empty


def machine(rows: Sequence[Mapping], environment: Mapping) -> str:
    """The measured hardware in words."""
    devices = sorted({row["device"] for row in rows if row["device"]})
    threads = sorted({int(row["threads"]) for row in rows if not math.isnan(row["threads"])})
    gpu, cpu = (environment.get("gpu") or {}).get("name"), (environment.get("machine") or {}).get("cpu")
    name = (
        gpu
        if devices == ["cuda"] and gpu
        else cpu
        if devices == ["cpu"] and cpu
        else " and ".join(devices) or "nothing"
    )
    return f"{name}, {' or '.join(map(str, threads)) or 'unknown'} thread{'' if threads == [1] else 's'}"


def decide(
    rows: Sequence[Mapping],
    resources: pd.DataFrame,
    asked: Sequence[Scenario],
    bounds: Sequence[float] = BOUNDS,
    environment: Mapping | None = None,
    loads: Sequence[Mapping] = (),
    price_per_kwh: float = math.nan,
) -> dict:
    """Everything that decision.json holds. loads: the rows of loads.csv."""
    groups = advice.by_model(rows)
    answers = answered(rows, asked, loads)
    names = [scenario.name for scenario in asked]
    where = machine(rows, environment or {})
    usable = [[row for row in own if not refusals.without_figures(row)] for own in groups.values()]
    found = {
        "machine": where,
        "pareto": [line for own in usable if own for line in front(own)],
        "scenarios": answers,
        "selection_matrix": advice.matrix(answers, names, {row["size_class"] for row in rows}),
        "tree": advice.decision_tree(by_load(rows, asked, loads), groups, names),
        "hardware": advice.hardware(rows, where),
        "cost_benefit": advice.cost_benefit(rows, resources, price_per_kwh),
        "use_cases": advice.use_cases(rows, loads),
        "quality_aware": advice.quality_aware(rows, bounds),
        "failed": [
            {"model": row["model"], "variant": row["variant"], "status": row["status"], "reason": row["reason"]}
            for row in rows
            if row["status"] != "ok"
        ],
    }
    return {"answer": headline.lines(rows, answers, found["failed"], where), **found}


def answered(rows: Sequence[Mapping], asked: Sequence[Scenario], loads: Sequence[Mapping]) -> list[dict]:
    """The answer to each scenario, at its own load, for each model that it is about."""
    found = []
    for scenario in asked:
        load = under_load.load_of(scenario, loads)
        own = under_load.at(rows, loads, load, scenario.objective)
        worded = replace(scenario, load_words=load and load.words)
        groups = advice.by_model(own).values()
        found += [answer(group, worded) for group in groups if advice.concerns(scenario, group[0]["parameters"])]
    return found


def by_load(rows: Sequence[Mapping], asked: Sequence[Scenario], loads: Sequence[Mapping]) -> dict[str, list[dict]]:
    """The answers at each load in words, of one load ``""``; a scenario that names a load is answered at that alone."""
    known = under_load.known(loads)
    if len(known) < 2:
        return {"": answered(rows, asked, loads)}
    return {
        load.words: answered(rows, [replace(one, load=one.load or load.name) for one in asked], loads) for load in known
    }


def clean(data):
    """The same data with None for NaN, and plain numbers for NumPy's, as JSON wants them."""
    if isinstance(data, Mapping):
        return {key: clean(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [clean(value) for value in data]
    if hasattr(data, "item"):
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write(folder: Path, decision: dict) -> None:
    """Write decision.json and one CSV for each of its tables."""
    for name in (*CSVS, *(name for name in OF_MACHINES if name in decision)):
        lines = [{key: _flat(value) for key, value in line.items()} for line in decision[name]]
        with atomic_file(folder / f"{name}.csv") as temporary:
            pd.DataFrame(lines, columns=_columns(name, lines)).to_csv(temporary, index=False, float_format="%.10g")
    write_json(folder / "decision.json", clean(decision))


def _columns(name: str, lines: Sequence[Mapping]) -> list[str]:
    """Columns in the order of their first appearance; pareto.csv keeps its own when no cell could be compared."""
    found = list(dict.fromkeys(key for line in lines for key in line))
    return found or EMPTY.get(name, [])


def _flat(value):
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {text}" for key, text in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def show(rows: Sequence[Mapping], scenario: Scenario, loads: Sequence[Mapping] = ()) -> None:
    """Print one scenario's answer for every model as a terminal table. loads: the rows of loads.csv."""
    from rich.console import Console
    from rich.table import Table

    console, load = Console(), under_load.load_of(scenario, loads)
    rows = under_load.at(rows, loads, load, scenario.objective)
    scenario = replace(scenario, load_words=load and load.words)
    for own in advice.by_model(rows).values():
        if not advice.concerns(scenario, own[0]["parameters"]):
            continue
        found = answer(own, scenario)
        table = Table(title=f"{found['model']}: {OBJECTIVES[scenario.objective]}; limits: {found['limits']}")
        for title in ("variant", "tokens/s", "speedup", "MB", "peak MB", "ppl %", "verdict"):
            words = title in ("variant", "verdict")
            table.add_column(title, justify="left" if words else "right", no_wrap=title != "verdict")
        places = {variant: place for place, variant in enumerate(found["admitted"])}
        for row in sorted(own, key=lambda row: places.get(row["variant"], len(places))):
            verdict = found["refused"].get(row["variant"]) or ("best" if places[row["variant"]] == 0 else "admissible")
            table.add_row(
                row["variant"], _show(row["decode_tokens_per_s"], "{:.1f}"), _show(row["speedup"], "{:.2f}×"),
                _show(row["memory_mb"], "{:.0f}"), _show(max(row["peak_mb"], row["load_peak_mb"]), "{:.0f}"),
                _show(row["degradation_pct"], "{:+.2f}"), verdict, style="bold" if verdict == "best" else None,
            )  # fmt: skip
        console.print(table)
        console.print(found["text"], highlight=False)


def _show(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def limit(text: str) -> float:
    """A limit of the command line: a finite number that is not negative."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no limit: give a number from 0 on")
    return number
