"""Decisions over several kinds of machine: each kind's own, side by side, and what is asked across them.

Fronts, scenarios and advice are a kind's own, since speedups are against a baseline on the same machine. Across kinds
go the tree, which asks for the hardware, what a million tokens cost, and the study's advice by hardware.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow.tradeoff.decide import advice, costs, decision, hardware, headline
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.files import atomic_file, read_json, write_json

ELSEWHERE = "any other"


def read(tables: Path) -> tuple[list[dict], dict[str, dict]]:
    """The rows of machines.csv, none of them in a study of one machine, and each kind's environment."""
    path = tables / "machines.csv"
    if not path.is_file():
        return [], {}
    return pd.read_csv(path).to_dict("records"), read_json(tables / "environments.json")


def decide(
    rows: Sequence[Mapping],
    resources: pd.DataFrame,
    asked: Sequence[Scenario],
    bounds: Sequence[float],
    machines: Sequence[Mapping],
    environments: Mapping[str, Mapping],
    loads: Sequence[Mapping] = (),
    price_per_kwh: float = math.nan,
) -> tuple[dict, dict[str, dict]]:
    """Everything that decision.json holds, of all kinds, and the same of each kind alone.

    rows, loads: with ``machine``. machines: the rows of machines.csv.
    """
    of_kind, parts = {}, {}
    for machine in machines:
        kind = machine["machine"]
        of_kind[kind] = (
            [row for row in rows if row["machine"] == kind],
            [row for row in loads if row["machine"] == kind],
        )
        own, at = of_kind[kind]
        parts[kind] = decision.decide(own, resources, asked, bounds, environments.get(kind), at, price_per_kwh)
    found: dict = {"machine": "; ".join(f"{kind}: {part['machine']}" for kind, part in parts.items())}
    for name in ("pareto", "scenarios", "selection_matrix", "cost_benefit", "use_cases", "quality_aware", "failed"):
        found[name] = [{"machine": kind, **entry} for kind, part in parts.items() for entry in part[name]]
    found["hardware"] = [
        {**entry, "hardware": kind if entry["model"] else ELSEWHERE, "machine": kind}
        for place, (kind, part) in enumerate(parts.items())
        for entry in part["hardware"]
        if entry["model"] or place == len(parts) - 1
    ]
    names = [scenario.name for scenario in asked]
    examples = [
        {**example, advice.HARDWARE: kind, "cell": f"{kind}: {example['cell']}"}
        for kind, (own, at) in of_kind.items()
        for example in advice.examples(decision.by_load(own, asked, at), advice.by_model(own), names)
    ]
    found["tree"] = advice.drawn(examples, [*parts, ELSEWHERE], names)
    prices, most = (
        {machine["machine"]: machine["price_per_hour"] for machine in machines},
        costs.most_degradation(asked),
    )
    found["costs"] = costs.table(rows, loads, prices, most)
    found["study_hardware"] = hardware.answers(rows, machines)
    return {"answer": lines(rows, parts, costs.sentence(found["costs"], most)), **found}, parts


def write(
    folder: Path, parts: Mapping[str, Mapping], rows: Sequence[Mapping], environments: Mapping[str, Mapping]
) -> None:
    """Each kind's own decision, rows and environment, from which its answers are deployed: {folder}/{kind}/."""
    for kind, part in parts.items():
        write_json(folder / kind / "decision.json", decision.clean(part))
        write_json(folder / kind / "environment.json", environments.get(kind) or {})
        with atomic_file(folder / kind / "summary.csv") as temporary:
            own = pd.DataFrame([row for row in rows if row["machine"] == kind])
            own.to_csv(temporary, index=False, float_format="%.10g")


def lines(rows: Sequence[Mapping], parts: Mapping[str, Mapping], cost: str) -> list[str]:
    """One line a scenario, with the answer on each kind; the cost; what was measured; what to leave."""
    every = [entry for part in parts.values() for entry in part["scenarios"]]
    found = []
    for name in headline.leading(every):
        own = [entry for entry in every if entry["scenario"] == name]
        text = "; ".join(
            f"on {kind}: {', '.join(headline.one_of_many(entry) for entry in entries)}"
            for kind, part in parts.items()
            if (entries := [entry for entry in part["scenarios"] if entry["scenario"] == name])
        )
        found.append(f"{headline.head(own[0])}: {text}.")
    found += [cost] if cost else []
    where = "; ".join(f"{kind} ({part['machine']})" for kind, part in parts.items())
    figures = sum(row["status"] == "ok" for row in rows)
    found.append(
        f"Measured on {len(parts)} kinds of machine, {where}: {len(rows)} cells (one model run in one way on one "
        f"kind), {figures} with figures. × and % are against the baseline on the same machine. {headline.READ}"
    )
    return found + [f"On {kind}. {part['answer'][-1]}" for kind, part in parts.items()]
