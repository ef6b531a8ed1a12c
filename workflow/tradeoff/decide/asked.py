"""What is asked: scenarios, each an objective, its limits and the load that it is about."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.words import OBJECTIVES


@dataclass(frozen=True)
class Scenario:
    """What is asked for, and its limits. memory: ``weights`` (with the cache) or ``peak`` (the whole process).

    load: name or point of the load that it is about; None is the standard one. ``load_words``: the load in words.
    """

    name: str
    objective: str = "speed"
    max_memory_gb: float | None = None
    min_tokens_per_s: float | None = None
    max_degradation_pct: float | None = None
    max_parameters: float | None = None
    min_parameters: float | None = None
    memory: str = "weights"
    undetectable: bool = False  # only variants without a detectable change of the NLL
    load: str | Mapping | None = None
    max_ttft_ms: float | None = None
    max_itl_ms: float | None = None  # of the median token
    load_words: str | None = None

    def limits(self) -> str:
        """The limits in words; ``none`` without one."""
        said = [
            (self.load_words, str(self.load_words)),
            (self.max_memory_gb, f"{self.memory_words()} ≤ {self.max_memory_gb} GB"),
            (self.min_tokens_per_s, f"≥ {self.min_tokens_per_s} tokens/s"),
            (self.max_ttft_ms, f"first token within {self.max_ttft_ms} ms"),
            (self.max_itl_ms, f"a token every {self.max_itl_ms} ms"),
            (self.max_degradation_pct, f"perplexity at most {self.max_degradation_pct}% worse"),
            (self.undetectable or None, "no detectable change of accuracy"),
            (self.min_parameters, f"models of {_billions(self.min_parameters)} parameters and more"),
            (self.max_parameters, f"models of at most {_billions(self.max_parameters)} parameters"),
        ]
        return ", ".join(text for value, text in said if value is not None) or "none"

    def asks_memory(self) -> bool:
        return self.objective == "memory" or self.max_memory_gb is not None

    def without_accuracy(self) -> "Scenario":
        """The same question where nothing is known of accuracy."""
        return replace(self, max_degradation_pct=None, undetectable=False)

    def memory_words(self) -> str:
        return "peak memory" if self.memory == "peak" else "weights and cache"


def _billions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e9:.3g} billion" if count >= 1e9 else f"{count / 1e6:.3g} million"


def parse(data: Mapping[str, Mapping]) -> list[Scenario]:
    """Scenarios out of {name: {objective, limits...}}; UserError names an unknown key, objective or memory."""
    known = {field.name for field in fields(Scenario)} - {"name", "load_words"}
    found = []
    for name, content in data.items():
        if not isinstance(content, Mapping):
            raise UserError(f"scenario {name} is {content!r}: give an objective and limits by name")
        if unknown := set(content) - known:
            raise UserError(
                f"scenario {name}: unknown key {', '.join(sorted(unknown))}: one of {', '.join(sorted(known))}"
            )
        for key in sorted(known - {"objective", "memory", "undetectable", "load"}):
            limit = content.get(key)
            if limit is not None and (not isinstance(limit, int | float) or not 0 <= limit < math.inf):
                raise UserError(f"scenario {name}: {key} is {limit!r}: give a number from 0 on")
        scenario = Scenario(name, **content)
        if scenario.objective not in OBJECTIVES:
            raise UserError(
                f"scenario {name}: unknown objective {scenario.objective!r}: one of {', '.join(OBJECTIVES)}"
            )
        if scenario.memory not in ("weights", "peak"):
            raise UserError(f"scenario {name}: memory is weights or peak, not {scenario.memory!r}")
        found.append(scenario)
    return found
