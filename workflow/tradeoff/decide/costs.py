"""What a million tokens cost on each kind of machine, from the speed of its cells and the price of its hour."""

import math
from collections.abc import Mapping, Sequence

from workflow.tradeoff.decide.advice import by_model
from workflow.tradeoff.decide.asked import Scenario
from workflow.tradeoff.words import number

COLUMNS = (
    "machine", "model", "variant", "load", "throughput_tokens_per_s", "price_per_hour", "cost_per_million_tokens",
    "cost_per_million_tokens_low", "cost_per_million_tokens_high", "degradation_pct", "cheapest",
)  # fmt: skip
MILLION_PER_HOUR = 1e6 / 3600


def table(
    rows: Sequence[Mapping], loads: Sequence[Mapping], prices: Mapping[str, float], most_pct: float = math.inf
) -> list[dict]:
    """A row for each cell that can be deployed and each load at which it has a throughput: keys COLUMNS.

    The cost is that of new tokens, the time of the prompts included, of one process that has the machine to itself
    for the whole hour. Its low end is the throughput's high one. ``cheapest`` is ``yes`` at the lowest cost of a model
    over all machines, variants and loads, of what loses at most ``most_pct`` of perplexity, or whose accuracy is open.
    rows: of the summary; loads: of loads.csv; prices: an hour of each kind.
    """
    deployed = {_cell(row): row for row in rows if row["status"] == "ok" and row.get("deployable") != "no"}
    found = []
    for load in loads:
        row, price = deployed.get(_cell(load)), prices.get(load["machine"], math.nan)
        if row is None or load["status"] != "ok" or math.isnan(load["throughput_tokens_per_s"]) or math.isnan(price):
            continue
        rates = [load[f"throughput_tokens_per_s{end}"] for end in ("", "_high", "_low")]
        cost = [price * MILLION_PER_HOUR / rate if rate > 0 else math.nan for rate in rates]
        line = [load[name] for name in COLUMNS[:5]] + [price, *cost, row["degradation_pct"], "no"]
        found.append(dict(zip(COLUMNS, line, strict=True)))
    for own in by_model(found).values():
        admitted = [line for line in own if not line["degradation_pct"] > most_pct]
        if admitted:
            min(admitted, key=lambda line: line["cost_per_million_tokens"])["cheapest"] = "yes"
    return found


def _cell(row: Mapping) -> tuple[str, str, str]:
    return row["machine"], row["model"], row["variant"]


def most_degradation(asked: Sequence[Scenario]) -> float:
    """The largest loss of perplexity, in percent, that any scenario admits; infinite where one sets no limit."""
    return max((math.inf if s.max_degradation_pct is None else s.max_degradation_pct for s in asked), default=math.inf)


def sentence(found: Sequence[Mapping], most_pct: float = math.inf) -> str:
    """The cheapest cell of each model beside the cheapest of each other machine, for the answer; "" without prices.

    Of what loses at most ``most_pct`` of perplexity, or whose accuracy is open.
    """
    words = []
    admitted = [line for line in found if not line["degradation_pct"] > most_pct]
    for model, own in by_model(admitted).items():
        best: dict[str, Mapping] = {}
        for line in sorted(own, key=lambda line: line["cost_per_million_tokens"]):
            best.setdefault(line["machine"], line)
        words.append(f"{model} {', '.join(map(_cheapest, best.values()))}")
    text = "A million tokens cost at least, of what a scenario admits, in the currency of the config's prices"
    return f"{text}: {'; '.join(words)}." if words else ""


def _cheapest(line: Mapping) -> str:
    change = line["degradation_pct"]
    accuracy = "accuracy open" if math.isnan(change) else f"perplexity {change:+.2f}%"
    cost = number(line["cost_per_million_tokens"])
    return f"{cost} on {line['machine']} as {line['variant']} ({line['load']}, {accuracy})"
