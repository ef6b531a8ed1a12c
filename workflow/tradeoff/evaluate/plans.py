"""What a baseline scored, kept beside its evaluation: every other cell of the model takes it from there.

So a text is read and cut into tokens once a model, and all of its cells score the same windows by construction.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from workflow.tradeoff.evaluate.conventions import Plan, Window

SUFFIX = ".plans.npz"
PARTS = ("tokens", "sizes", "scored", "block")


def settings(args) -> dict:
    """What decides how a model's tokenizer cuts a corpus: kept with the plans, and asked of them."""
    return {"conventions": list(args.conventions), "max_tokens": args.max_tokens, "bos": args.bos}


def arrays(plans: Sequence[Plan], asked: Mapping) -> dict[str, np.ndarray]:
    """Plans as arrays: of each, its windows' tokens one after the other, their sizes, targets and blocks."""
    found = {}
    for plan in plans:
        windows = plan.windows
        values = (
            np.concatenate([window.tokens for window in windows]),
            np.array([len(window.tokens) for window in windows]),
            np.array([window.scored for window in windows]),
            np.array([window.block for window in windows]),
        )
        found |= {f"{plan.convention}/{part}": array for part, array in zip(PARTS, values, strict=True)}
    said = [
        {"convention": plan.convention, "bos": plan.bos, "join": plan.join, "length": plan.length, "facts": plan.facts}
        for plan in plans
    ]
    return found | {"said": np.array(json.dumps({"settings": asked, "plans": said}))}


def stored(found: Mapping[str, np.ndarray], asked: Mapping) -> list[Plan] | None:
    """The plans in ``found``, as ``arrays`` gives them; None where there are none, or other ones than are asked for."""
    said = json.loads(str(found["said"])) if "said" in found else {}
    if said.get("settings") != asked:
        return None
    plans = []
    for plan in said["plans"]:
        tokens, sizes, scored, block = (found[f"{plan['convention']}/{part}"] for part in PARTS)
        cut = np.split(tokens, np.cumsum(sizes)[:-1])
        windows = [Window(ids, int(n), int(b)) for ids, n, b in zip(cut, scored, block, strict=True)]
        plans.append(Plan(plan["convention"], windows, plan["bos"], plan["join"], plan["length"], plan["facts"]))
    return plans
