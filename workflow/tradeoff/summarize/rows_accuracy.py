"""Perplexity, its paired change, the divergence and the text of one cell, against its baseline."""

import statistics
from collections.abc import Mapping

import numpy as np

from workflow.tradeoff import stats
from workflow.tradeoff.summarize import quality, rows_speed
from workflow.tradeoff.summarize.cells import Cell


def accuracy_columns(cell: Cell, baseline: Cell | None, convention: str | None) -> dict:
    """Perplexity, the paired change against the baseline, and the divergence from it."""
    found = cell.quality["conventions"].get(convention)
    if found is None:
        return {}
    line = {
        "convention": convention,
        "eval_tokens": found["tokens"],
        "nll": found.get("mean_nll"),
        "perplexity": found.get("perplexity"),
    }
    line |= paired_columns(cell, baseline, convention)
    divergence = cell.quality.get("divergence") or {}
    measured = divergence.get(convention) or next(iter(divergence.values()), {})
    line |= {name: measured.get(name) for name in ("kl_mean", "kl_p50", "kl_p90", "kl_p99", "dp_rms")}
    if measured.get("same_top") is not None:
        line["same_top_pct"] = 100 * measured["same_top"]
    return line


def paired_columns(cell: Cell, baseline: Cell | None, convention: str) -> dict:
    """ΔNLL and degradation with intervals; nothing when the two did not score the same tokens."""
    if cell.variant == cell.baseline:
        zero = dict.fromkeys(("delta_nll", "delta_nll_low", "delta_nll_high"), 0.0)
        zero |= dict.fromkeys(("degradation_pct", "degradation_low_pct", "degradation_high_pct"), 0.0)
        return zero | {"quality_verdict": "baseline"}
    own, base = cell.nll(convention), baseline.nll(convention) if baseline else None
    if own is None or base is None or own[0].shape != base[0].shape:
        return {}
    if cell.quality["corpus"]["sha256"] != baseline.quality["corpus"]["sha256"]:
        return {}
    if not (np.isfinite(own[0]).all() and np.isfinite(base[0]).all()):
        return {}
    delta = stats.paired_delta(own[0], base[0], own[1])
    return {
        **rows_speed.triple("delta_nll", delta),
        "degradation_pct": 100 * np.expm1(delta.value),
        "degradation_low_pct": 100 * np.expm1(delta.low),
        "degradation_high_pct": 100 * np.expm1(delta.high),
        "quality_verdict": stats.quality_verdict(delta.low, delta.high),
    }


def text_columns(text: Mapping) -> dict:
    """The rubric's scores, mean over the prompts, and how far greedy text agrees with the baseline's."""
    generated = text.get("generated") or []
    if not generated:
        return {}
    scores = [quality.score(entry["prompt"], entry["text"]) for entry in generated]
    line = {
        "quality_score": statistics.fmean(score["score"] for score in scores),
        **{
            name: statistics.fmean(score[name] for score in scores)
            for name in ("coherence", "completeness", "relevance")
        },
    }
    if text["variant"] != text["baseline"]:
        first = [entry.get("first_difference") for entry in generated]
        middle = statistics.median(float("inf") if place is None else place for place in first)
        line["first_difference_median"] = None if middle == float("inf") else middle
        line["same_text_pct"] = 100 * sum(place is None for place in first) / len(first)
    return line
