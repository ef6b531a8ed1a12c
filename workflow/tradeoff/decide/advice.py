"""Advice from the measured cells: the study's matrix, tree, hardware, costs and use cases, each citing its cells."""

import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from workflow.tradeoff.decide import refusals, tree, under_load
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.decide.phrases import accuracy, cite, short
from workflow.tradeoff.decide.scenarios import answer
from workflow.tradeoff.variants import VARIANTS

SIZES = {"small": "Small (<1B)", "medium": "Medium (1-6B)", "large": "Large (>6B)"}
NONE = "no admissible variant"
NOT_ABOUT = "not about this size"
LOAD = "Load?"
PREPARES = ("export", "quantize", "fuse", "gguf", "auto_round")  # rules that make what an engine loads
HARDWARE = "Hardware type?"
MILLION_PER_KWH = 1e6 / 3.6e6  # kilowatt-hours of a million tokens, of each joule that a token takes
# the study's use cases, each as the question that it asks
USE_CASES = {
    "Research and development": (
        Scenario("research", "speed", max_degradation_pct=1),
        "the fastest whose perplexity is surely at most 1% worse, so that results carry over",
    ),
    "Production": (
        Scenario("production", "balanced", max_degradation_pct=5),
        "the best product of all three within 5%",
    ),
    "Edge": (Scenario("edge", "memory", max_degradation_pct=10), "the smallest within 10%"),
    "High throughput": (
        Scenario("throughput", "speed", max_degradation_pct=10),
        "the fastest within 10%; batches were not measured, one user is served at a time",
    ),
}


def concerns(scenario: Scenario, parameters: float) -> bool:
    """Whether a scenario is about a model of this size; a size that is not known is left out of no scenario."""
    if math.isnan(parameters):
        return True
    return (scenario.min_parameters or 0) <= parameters <= (scenario.max_parameters or math.inf)


def matrix(answers: Sequence[Mapping], names: Sequence[str], measured: Collection[str]) -> list[dict]:
    """Size class × scenario: the answers of the models of that class, or that none was measured."""
    table = []
    for size, label in SIZES.items():
        if size not in measured:
            table.append({"model_size": label, "scenario": "any", "optimal_variant": tree.NOT_MEASURED})
            continue
        for name in names:
            found = [entry for entry in answers if entry["size_class"] == size and entry["scenario"] == name]
            winners: dict[str, list[str]] = {}
            for entry in found:
                winners.setdefault(entry["winner"] or NONE, []).append(entry["model"])
            table.append(
                {
                    "model_size": label,
                    "scenario": name,
                    "optimal_variant": "; ".join(winners) or NOT_ABOUT,
                    "precision": "; ".join(VARIANTS[w].label for w in winners if w in VARIANTS) or None,
                    "cells": "; ".join(entry["cell"] for entry in found) or None,
                }
            )
    return table


def decision_tree(
    answers: Mapping[str, Sequence[Mapping]], groups: Mapping[str, Sequence[Mapping]], names: Sequence[str]
) -> list[str]:
    """The tree as lines: the study's three questions with all their replies, and the load where the answer depends on
    it.

    answers: of each load, in words; ``""`` where one was measured. groups: the summary's rows by model.
    """
    return drawn(examples(answers, groups, names), ["cpu", "cuda"], names)


def examples(
    answers: Mapping[str, Sequence[Mapping]], groups: Mapping[str, Sequence[Mapping]], names: Sequence[str]
) -> list[dict]:
    """What the tree is learned from: each answer with its reply to each question, and the cell behind it."""
    devices = {model: row["device"] for model, own in groups.items() for row in own if row["device"]}
    sizes = {model: SIZES[own[0]["size_class"]] for model, own in groups.items() if own[0]["size_class"]}
    met = {
        (load, entry["model"], entry["scenario"]): entry["winner"] or NONE
        for load, own in answers.items()
        for entry in own
    }
    return [
        {
            "Model size?": sizes[model],
            HARDWARE: devices[model],
            "Primary constraint?": name,
            LOAD: load,
            "answer": met.get((load, model, name), NOT_ABOUT),
            "cell": f"{model}/{met[load, model, name]}" if met.get((load, model, name), NONE) != NONE else model,
        }
        for load in answers
        for model in groups
        for name in names
        if model in sizes and model in devices
    ]


def drawn(found: Sequence[Mapping], hardware: Sequence[str], names: Sequence[str]) -> list[str]:
    """The lines of the tree that examples give. hardware: all replies to that question; names: of the scenarios."""
    if not found:
        return [tree.NOT_MEASURED]
    asked = {"Model size?": list(SIZES.values()), HARDWARE: list(hardware), "Primary constraint?": list(names)}
    asked[LOAD] = list(dict.fromkeys(example[LOAD] for example in found))
    return tree.draw(tree.learn(found, asked, last=LOAD))


def hardware(rows: Sequence[Mapping], machine: str) -> list[dict]:
    """What to take and what to avoid on the measured machine; elsewhere nothing was measured."""
    table = []
    for model, own in by_model(rows).items():
        usable = [row for row in own if not refusals.refusal(row, Scenario("any", "memory"))]
        if not usable:
            table.append({"hardware": machine, "model": model, "advice": "No cell gave a figure."})
            continue
        fastest = answer(usable, Scenario("any", "speed"))
        smallest = min(usable, key=lambda row: row["memory_mb"])
        named = {row["variant"]: accuracy(row) for row in usable}
        text = f"Fastest {fastest['cell']}{named.get(fastest['winner'], '')}. "
        text += f"Smallest {cite(smallest)} ({short(smallest, 'memory')}{accuracy(smallest)})."
        slow = [row for row in usable if row["speed_verdict"] == "slower"]
        large = [row for row in slow if row["memory_reduction_pct"] <= 0]
        beaten = {
            row["variant"]: best for row in slow if row not in large and (best := _smaller_and_faster(row, usable))
        }
        if large:
            text += f" Avoid {_list(large)}: slower than the baseline and no smaller."
        if names := [row for row in slow if row["variant"] in beaten]:
            words = list(dict.fromkeys(cite(best) for best in beaten.values()))
            text += f" Avoid {_list(names)}: slower than the baseline, where {' and '.join(words)} "
            text += f"{'is' if len(words) == 1 else 'are'} faster and no larger"
            text += (
                ", and by its figure no less accurate."
                if not any(math.isnan(row["degradation_pct"]) for row in names)
                else "."
            )
        if left := [row for row in slow if row not in large and row["variant"] not in beaten]:
            text += f" Take {_list(left)} for memory only: slower than the baseline."
        table.append({"hardware": machine, "model": model, "advice": text})
    table.append({"hardware": "any other", "model": None, "advice": f"{tree.NOT_MEASURED}: run this study there."})
    return table


def _smaller_and_faster(row: Mapping, others: Sequence[Mapping]) -> Mapping | None:
    """The smallest cell that is no slower than the baseline, as small as ``row`` and as accurate; None without one."""
    better = [
        other
        for other in others
        if other["speed_verdict"] in ("faster", "tie", "baseline")
        and other["memory_mb"] <= row["memory_mb"]
        and not other["degradation_pct"] > row["degradation_pct"]
    ]
    return min(better, key=lambda other: other["memory_mb"], default=None)


def _list(rows: Sequence[Mapping]) -> str:
    return ", ".join(f"{cite(row)} ({row['speedup']:.3g}×)" for row in rows)


def use_cases(rows: Sequence[Mapping], loads: Sequence[Mapping] = ()) -> list[dict]:
    """The study's use cases, each answered for each model; high throughput by the largest batch that was measured.

    loads: the rows of loads.csv.
    """
    asked = {name: (scenario, words, rows) for name, (scenario, words) in USE_CASES.items()}
    if batch := under_load.batch(loads):
        scenario = Scenario("throughput", "throughput", max_degradation_pct=10, load_words=batch.words)
        words = f"the most tokens a second of {batch.words}, prompts included, within 10%"
        asked["High throughput"] = scenario, words, under_load.at(rows, loads, batch, "throughput")
    return [
        {"use_case": name, "question": words, "model": model, **_chosen(answer(own, scenario))}
        for name, (scenario, words, given) in asked.items()
        for model, own in by_model(given).items()
    ]


def quality_aware(rows: Sequence[Mapping], bounds: Sequence[float]) -> list[dict]:
    """For each bound on degradation the fastest and the smallest variant that meet it at 95% confidence."""
    table = []
    for model, own in by_model(rows).items():
        for bound in bounds:
            line = {"model": model, "max_degradation_pct": bound}
            for word, objective in (("fastest", "speed"), ("smallest", "memory")):
                found = answer(own, Scenario(f"{word} within {bound}%", objective, max_degradation_pct=bound))
                line |= {word: found["winner"] or NONE, f"{word}_cell": found["cell"]}
            table.append(line)
    return table


def _chosen(found: Mapping) -> dict:
    return {"recommended": found["winner"] or NONE, "cell": found["cell"]}


def cost_benefit(rows: Sequence[Mapping], resources: pd.DataFrame, price_per_kwh: float = math.nan) -> list[dict]:
    """By precision and engine, as the study's tables name them: what it brought (range over the models), what it costs.

    The study's "implementation complexity" is an opinion; what can be measured of the cost is the time to prepare
    the artifact, its size on disk, and the memory and time while it is loaded. What a counter showed of energy is there
    beside it, and what that costs by ``price_per_kwh``.
    """
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        spec = VARIANTS[row["variant"]]
        groups.setdefault(spec.label, []).append(row)
    table = []
    for name, own in groups.items():
        judged = [(row, refusals.without_figures(row)) for row in own]
        usable = [row for row, why in judged if why is None]
        refused = [(row, why.limit) for row, why in judged if why is not None]
        table.append(
            {
                "precision": name,
                "speedup": span([row["speedup"] for row in usable], "{:.2f}×"),
                "memory_reduction": span([row["memory_reduction_pct"] for row in usable], "{:.0f}%"),
                "degradation": span([row["degradation_pct"] for row in usable], "{:+.2f}%"),
                "prepare_s": span([_prepare_seconds(row, resources) for row in usable], "{:.0f}"),
                "disk_mb": span([row["disk_mb"] for row in usable], "{:.0f}"),
                "load_peak_mb": span([row["load_peak_mb"] for row in usable], "{:.0f}"),
                "joules_per_token": span([row["joules_per_token"] for row in usable], "{:.3g}"),
                "electricity_per_million_tokens": span(
                    [price_per_kwh * row["joules_per_token"] * MILLION_PER_KWH for row in usable], "{:.3g}"
                ),
                "cells": by_variant(usable) if usable else None,
                "without_figure": ", ".join(f"{cite(row)} ({why})" for row, why in refused) or None,
            }
        )
    return table


def _prepare_seconds(row: Mapping, resources: pd.DataFrame) -> float:
    """Seconds that the making of a cell's artifact took; 0 where it runs the checkpoint itself.

    A quantized ONNX file is made from the exported float32 one with, or without, a cache.
    """
    spec = VARIANTS[row["variant"]]
    artifact = spec.artifact
    if artifact == "model":
        return 0.0
    exported = "onnx-fp32-kv" if artifact.endswith("-kv") else "onnx-fp32"
    steps = resources[resources["rule"].isin(PREPARES)]
    parts = {artifact, exported} if spec.family == "onnx" else {artifact}
    own = steps[steps["of"].isin({f"{row['model']}_{name}" for name in parts})]
    made = f"{row['model']}_{artifact}" in set(own["of"])
    return float(own["s"].sum()) if made else math.nan


def span(values: Sequence[float], form: str) -> str | None:
    """The range of the known values, or their one value."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return None
    ends = [form.format(known[0]), form.format(known[-1])]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def by_variant(cells: Sequence[Mapping]) -> str:
    """Cells in words, those of one variant together: ``bnb-int8 (distilgpt2, tinyllama)``; ``none`` without any."""
    models: dict[str, list[str]] = {}
    for cell in cells:
        models.setdefault(cell["variant"], []).append(cell["model"])
    return ", ".join(f"{variant} ({', '.join(names)})" for variant, names in models.items()) or "none"


def by_model(rows: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    groups: dict[str, list[Mapping]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    return groups
