"""The study's advice by hardware, answered from the cells of the kinds of machine that are such hardware."""

import re
from collections.abc import Mapping, Sequence

from workflow.tradeoff.decide import advice, tree
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.decide.scenarios import answer
from workflow.tradeoff.variants import VARIANTS

# of each hardware of the study: its name, its advice, the cards that it names, and what would bear the advice out
ADVICE = {
    "legacy": ("Legacy (Tesla T4)", "Prefer ONNX Runtime", r"\bT4\b", lambda fast: fast.engine == "onnx"),
    "modern": ("Modern (A100/H100)", "Use advanced quantization", r"A100|H100", lambda fast: fast.quantized),
    "edge": ("Edge", "Prioritize memory efficiency", None, None),
}
FASTEST = Scenario("fastest", "speed", max_degradation_pct=10)
SMALLEST = Scenario("smallest", "memory", max_degradation_pct=10)


def kind_of(machine: Mapping) -> str | None:
    """Which of ADVICE a row of machines.csv is: the config's word, or else what its card's name says."""
    if isinstance(machine.get("hardware"), str):
        return machine["hardware"]
    card = machine.get("gpu")
    named = (name for name, (_, _, pattern, _) in ADVICE.items() if pattern and isinstance(card, str))
    return next((name for name in named if re.search(ADVICE[name][2], card)), None)


def answers(rows: Sequence[Mapping], machines: Sequence[Mapping]) -> list[dict]:
    """For each hardware of the study and each model on such a machine: its advice, and the cells that answer it.

    ``bears_out`` is yes or no where the advice names a way to run a model and the fastest within 10% is, or is not,
    such a way; what the advice only aims at is answered by the cells alone.
    """
    found = []
    for name, (words, said, _, test) in ADVICE.items():
        head = {"hardware": words, "study_says": said}
        kinds = [machine["machine"] for machine in machines if kind_of(machine) == name]
        own = [row for row in rows if row["machine"] in kinds]
        nothing = dict.fromkeys(("machine", "model", "fastest", "smallest"))
        lines = []
        for kind in kinds:
            for model, group in advice.by_model([row for row in own if row["machine"] == kind]).items():
                fast, small = answer(group, FASTEST), answer(group, SMALLEST)
                if fast["winner"] is None and small["winner"] is None:
                    continue
                verdict = "yes" if test and fast["winner"] and test(VARIANTS[fast["winner"]]) else "no"
                cells = {"fastest": fast["cell"], "smallest": small["cell"]}
                place = {"machine": kind, "model": model}
                lines.append({**head, **place, **cells, "bears_out": verdict if test else "an aim: see the cells"})
        found += lines or [{**head, **nothing, "bears_out": tree.NOT_MEASURED}]
    return found
