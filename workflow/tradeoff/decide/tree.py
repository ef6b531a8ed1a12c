"""A small decision tree over named answers, learned by information gain and drawn as text in the study's form.

Every question has all its possible replies, so a reply that no cell stands behind is a branch that says so.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

NOT_MEASURED = "not measured"


def entropy(examples: Sequence[Mapping]) -> float:
    """Bits of the examples' answers."""
    counts = Counter(example["answer"] for example in examples)
    return -sum(count / len(examples) * math.log2(count / len(examples)) for count in counts.values())


def gain(examples: Sequence[Mapping], question: str) -> float:
    """Bits that the reply to a question tells about the answer (Quinlan 1986)."""
    parts = [_with(examples, question, reply) for reply in {example[question] for example in examples}]
    return entropy(examples) - sum(len(part) / len(examples) * entropy(part) for part in parts)


def _with(examples: Sequence[Mapping], question: str, reply: str) -> list[Mapping]:
    return [example for example in examples if example[question] == reply]


def learn(examples: Sequence[Mapping], questions: Mapping[str, Sequence[str]], last: str = "") -> dict:
    """A tree as nested dicts: {"question", "branches": {reply: tree}} or {"answers": {answer: [cells]}}.

    examples: each has a reply to every question, ``answer`` and ``cell`` (what supports it).
    questions: {question: all replies that there are}. A question of which some reply was never seen is asked even
    where it tells nothing, before the others: an answer is not carried over to what was not measured. last: a
    question that is asked only where the others tell nothing more and it does.
    """
    if not examples:
        return {"answers": {}}
    first = {name: replies for name, replies in questions.items() if name != last}
    unseen = [name for name, replies in first.items() if set(replies) - {example[name] for example in examples}]
    best = max(unseen or first, key=lambda name: gain(examples, name), default=None)
    if best is None or (not unseen and gain(examples, best) <= 1e-12):
        best = last if last in questions and gain(examples, last) > 1e-12 else None
    if best is None:
        answers: dict[str, list[str]] = {}
        for example in examples:
            answers.setdefault(example["answer"], []).append(example["cell"])
        return {"answers": answers}
    rest = {name: replies for name, replies in questions.items() if name != best}
    branches = {reply: learn(_with(examples, best, reply), rest, last) for reply in questions[best]}
    return {"question": best, "branches": branches}


def draw(tree: Mapping, indent: str = "", number: int = 1) -> list[str]:
    """The tree's lines: questions are numbered by depth, branches drawn with ├─ and └─."""
    lines = [f"{indent}{number}. {tree['question']}"] if "question" in tree else []
    branches = list(tree.get("branches", {}).items())
    for place, (reply, below) in enumerate(branches):
        last = place == len(branches) - 1
        start = f"{indent}   {'└─' if last else '├─'} {reply}: "
        if "question" in below:
            lines.append(start + f"continue to {number + 1}")
            lines += draw(below, indent + ("      " if last else "   │  "), number + 1)
        else:
            lines.append(start + leaf(below))
    return lines


def leaf(tree: Mapping) -> str:
    """The answers of a leaf, the best supported first, each with its cells."""
    if not tree["answers"]:
        return NOT_MEASURED
    ranked = sorted(tree["answers"].items(), key=lambda item: -len(item[1]))
    return "; but ".join(f"{answer} [{', '.join(dict.fromkeys(cells))}]" for answer, cells in ranked)
