"""From the raw facts of requests to percentiles, goodput, saturation, and one server against another."""

from collections.abc import Mapping, Sequence

import numpy as np

from workflow.tradeoff import stats

PERCENTILES = (50, 90, 99)
KEEPS_UP = 0.9  # share of the offered rate that a server that is not saturated answers
BLOCK = 4  # requests that follow each other are resampled together: they waited in one queue
DRAWS = 2000
TIMES = {"faster": "higher", "slower": "lower"}  # what a ratio of times is called, of two speeds' words


def spread(values: Sequence[float], name: str) -> dict[str, float | None]:
    """p50, p90 and p99 of seconds, in ms."""
    made = np.percentile(values, PERCENTILES) * 1e3 if len(values) else [None] * len(PERCENTILES)
    return {f"{name}_p{part}_ms": value for part, value in zip(PERCENTILES, made, strict=True)}


def within(fact: Mapping, limits: Mapping) -> bool:
    """Whether a request was answered within a scenario's limits: its time to the first token, its median gap."""
    if fact["error"]:
        return False
    gap = float(np.median(fact["itl_s"])) * 1e3 if fact["itl_s"] else 0.0
    infinite = float("inf")
    return fact["ttft_s"] * 1e3 <= limits.get("max_ttft_ms", infinite) and gap <= limits.get("max_itl_ms", infinite)


def figures(facts: Sequence[Mapping], limits: Mapping) -> dict:
    """One rate's figures; times in ms, rates in requests/s. Without an answer, None where a time would stand."""
    good = [fact for fact in facts if not fact["error"]]
    ends = [fact["arrival_s"] + fact["latency_s"] for fact in facts]
    lasted = max(ends, default=0.0)
    arrived = max((fact["arrival_s"] for fact in facts), default=0.0)
    tokens = sum(fact["tokens"] or 0 for fact in good)
    per_second = (lambda count: count / lasted) if lasted else (lambda count: None)
    return {
        "requests": len(facts),
        "errors": len(facts) - len(good),
        "offered_per_s": (len(facts) - 1) / arrived if arrived else None,
        "answered_per_s": per_second(len(good)),
        "good_per_s": per_second(sum(within(fact, limits) for fact in facts)),
        "good_pct": 100 * sum(within(fact, limits) for fact in facts) / len(facts) if facts else None,
        "tokens_per_s": per_second(tokens),
        **spread([fact["ttft_s"] for fact in good], "ttft"),
        **spread([gap for fact in good for gap in fact["itl_s"]], "itl"),
        **spread([fact["latency_s"] for fact in good], "latency"),
    }


def keeps_up(facts: Sequence[Mapping], alone_s: float) -> bool:
    """Whether the last answer came as soon after the last arrival as one that did not wait.

    alone_s: the median answer at the lowest rate. True while the time to answer them all, less that, is within
    1 / KEEPS_UP of the time in which they arrived.
    """
    good = [fact for fact in facts if not fact["error"]]
    if len(good) < KEEPS_UP * len(facts):
        return False
    arrived = max(fact["arrival_s"] for fact in facts)
    lasted = max(fact["arrival_s"] + fact["latency_s"] for fact in facts)
    return lasted - alone_s <= arrived / KEEPS_UP


def saturation(rates: Sequence[Mapping]) -> dict:
    """``rates``: of one server, each with ``rate`` and ``facts``, rising.

    ``saturates_at``: the lowest rate that it does not keep up with, None where it kept up with all; ``most_per_s``: the
    most requests that it answered in a second.
    """
    first = [fact["latency_s"] for fact in rates[0]["facts"] if not fact["error"]]
    alone = float(np.median(first)) if first else 0.0
    lost = [entry["rate"] for entry in rates if not (entry["facts"] and keeps_up(entry["facts"], alone))]
    answered = [figures(entry["facts"], {})["answered_per_s"] for entry in rates]
    return {"saturates_at": min(lost, default=None), "most_per_s": max(filter(None, answered), default=None)}


def versus(facts: Sequence[Mapping], others: Sequence[Mapping], key: str, seed: int = 0) -> dict | None:
    """Ratio of a time of one server to another's over the same prompts and arrivals, with its 95% interval.

    The geometric mean over pairs of requests, by a bootstrap over blocks of consecutive ones. None below two blocks.
    """
    pairs = zip(facts, others, strict=False)
    logs = [np.log(own[key] / other[key]) for own, other in pairs if not (own["error"] or other["error"])]
    if len(logs) < 2 * BLOCK:
        return None
    values = np.array(logs)
    draw = np.random.default_rng(seed)
    starts = draw.integers(0, len(values) - BLOCK + 1, (DRAWS, -(-len(values) // BLOCK)))
    places = (starts[:, :, None] + np.arange(BLOCK)).reshape(DRAWS, -1)[:, : len(values)]
    low, high = np.percentile(values[places].mean(axis=1), [2.5, 97.5])
    ratio, low, high = np.exp([values.mean(), low, high]).tolist()
    verdict = TIMES.get(found := stats.speed_verdict(low, high), found)
    return {"ratio": ratio, "low": low, "high": high, "pairs": len(logs), "verdict": verdict}
