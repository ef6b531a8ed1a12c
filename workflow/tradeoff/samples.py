"""Raw samples of speed: which of them count, what each says, and how those of a cell and its baseline are paired.

A process of a speed file has ``role``, ``replicate`` (the pair of processes that it belongs to) and ``samples``; a
sample has its ``turn`` and, where others took the machine meanwhile, why it does not count in ``disturbed``.
"""

import math
from collections.abc import Callable, Iterable, Mapping

Sample = Mapping
Process = Mapping


def decode_rate(sample: Sample) -> float:
    """Decode tokens a second: tokens over their summed inter-token times."""
    return len(sample["itl_s"]) / sum(sample["itl_s"])


def first_token_seconds(sample: Sample) -> float:
    """Seconds to the first token."""
    return sample["ttft_s"]


def throughput(sample: Sample) -> float:
    """New tokens a second of one sequence over the whole generation, the prompt's time included."""
    return (len(sample["itl_s"]) + 1) / (sample["ttft_s"] + sum(sample["itl_s"]))


def study_rate(sample: Sample) -> float:
    """Tokens a second by the study's protocol: new tokens over the seconds of the whole call."""
    return sample["new_tokens"] / sample["total_s"]


def clean(process: Process) -> list[Sample]:
    """The samples of a process that count."""
    return [sample for sample in process["samples"] if not sample.get("disturbed")]


def pairs(processes: Iterable[Process], value: Callable[[Sample], float], alone: bool = False) -> list[list[float]]:
    """For each pair of processes, in order: the logarithm of cell over baseline of each turn that both have clean.

    A pair without such a turn is left out. alone: there is no baseline beside the cell, and its own logarithms are
    meant.
    """
    found: dict[int, dict[str, dict[int, float]]] = {}
    for process in processes:
        turns = {sample["turn"]: math.log(value(sample)) for sample in clean(process)}
        found.setdefault(process["replicate"], {})[process["role"]] = turns
    result = []
    for _, roles in sorted(found.items()):
        own = roles.get("cell", {})
        base = dict.fromkeys(own, 0.0) if alone else roles.get("baseline", {})
        if logs := [own[turn] - base[turn] for turn in sorted(own.keys() & base.keys())]:
            result.append(logs)
    return result
