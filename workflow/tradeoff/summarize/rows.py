"""One cell's row of the summary: its figures out of the raw samples, log-probs and proof, and the gates' word on it.

Pure functions. A figure that was not earned is None.
"""

from collections.abc import Mapping

from workflow.tradeoff import loaded
from workflow.tradeoff.columns import COLUMNS
from workflow.tradeoff.summarize import gates, rows_accuracy, rows_speed
from workflow.tradeoff.summarize.cells import Cell
from workflow.tradeoff.variants import VARIANTS

FLOAT_BITS = 16  # of a weight that was not quantized, at least
CLAIMS = (  # what a gated cell must not claim
    *(name for name in COLUMNS if name.startswith(("decode_", "ttft_", "itl_", "speedup", "study_s", "study_t"))),
    *(name for name in COLUMNS if name.startswith("throughput_ratio")),
    "baseline_tokens_per_s", "baseline_ttft_ms",
    "half_width_pct", "speed_verdict", "memory_reduction_pct", "mbu_pct", "roofline_label",
)  # fmt: skip
RATIOS = (
    *(name for name in COLUMNS if name.startswith(("speedup", "study_speedup", "delta_nll", "degradation"))),
    *(name for name in COLUMNS if name.startswith("throughput_ratio")),
    "speed_verdict", "quality_verdict", "memory_reduction_pct",
)  # fmt: skip


def row(cell: Cell, baseline: Cell | None, convention: str | None, limits: Mapping[str, float]) -> dict:
    """The summary row of ``cell``: every name of COLUMNS, None where there is no figure.

    baseline: the cell of the same model that it is compared with; None when it was not run.
    convention: of the accuracy columns. limits: kl_most and delta_most, for the gate on divergence.
    """
    speed, text = cell.speed, cell.quality
    line: dict = dict.fromkeys(COLUMNS)
    head = speed or text
    line |= {name: head.get(name) for name in ("study", "model", "variant", "baseline")}
    line |= {
        "deployable": "no" if VARIANTS[cell.variant].reference else "yes",
        "device": speed.get("device"),
        "threads": speed.get("threads"),
        "parameters": cell.facts.get("parameters"),
        "size_class": size_class(cell.facts.get("parameters")),
        "weights_from": weights_from(cell.facts),
        "status": speed.get("status", "not_measured"),
        "accuracy_status": text.get("status", "not_evaluated"),
        "artifact": loaded.short((head.get("digests") or {}).get("artifact", "")) or None,
        "environment": (head.get("environment") or {}).get("digest", "")[:12] or None,
    }
    reasons = [("" if part is speed else "accuracy: ") + part["reason"] for part in (speed, text) if part.get("reason")]
    reasons += [text["generated_reason"]] if text.get("generated_reason") else []
    if speed.get("status") in ("ok", "disturbed"):  # what is disturbed has memory and proof all the same
        reasons += (speed.get("proof") or {}).get("remarks") or []
        reasons += [words] if (words := rows_speed.astray(speed)) else []
        line |= rows_speed.speed_columns(speed) if speed["status"] == "ok" else {}
        line |= rows_speed.memory_columns(speed, baseline) | rows_speed.proof_columns(cell)
    if text.get("conventions"):
        line |= rows_accuracy.accuracy_columns(cell, baseline, convention) | rows_accuracy.text_columns(text)
    apart = differences(cell, baseline)
    if apart:
        line |= dict.fromkeys(RATIOS)
        reasons.append(f"no ratio: the baseline ran in another environment ({'; '.join(apart)})")
    gate = judge(cell, line, limits)
    if gate and line["status"] == "ok":
        line["status"] = gate[0]
        reasons.append(gate[1])
    if line["status"] != "ok":
        line |= dict.fromkeys(CLAIMS)
    if line["status"] == "diverged":
        line |= dict.fromkeys(("quality_verdict",))
    line["reason"] = "; ".join(dict.fromkeys(reasons)) or None
    return line


def judge(cell: Cell, line: Mapping, limits: Mapping[str, float]) -> tuple[str, str] | None:
    """The first gate that the cell does not pass, as (status, reason)."""
    if proof := cell.speed.get("proof"):
        if reason := gates.not_quantized(cell.spec, proof):
            return "not_quantized", reason
        if reason := gates.other_cache(cell.spec, proof):
            return "not_quantized", reason
        if reason := gates.not_cached(cell.spec, proof):
            return "not_cached", reason
        if reason := gates.fell_back(proof, rows_speed.requested(cell)):
            return "fell_back", reason
    if cell.quality.get("status") == "ok":
        means = [found.get("mean_nll") for found in cell.quality["conventions"].values()]
        if reason := gates.diverged(means, line["kl_mean"], line["delta_nll"], **limits):
            return "diverged", reason
    elif cell.quality.get("status") == "diverged":
        return "diverged", cell.quality.get("reason") or "the log-probabilities are not numbers"
    return None


def differences(cell: Cell, baseline: Cell | None) -> list[str]:
    """Fields in which a cell's environment is not its baseline's: there is no ratio then."""
    if baseline is None or baseline is cell:
        return []
    found: list[str] = []
    for kind in ("speed", "quality"):
        ours, theirs = getattr(cell, kind), getattr(baseline, kind)
        if ours.get("status") == "ok" and theirs.get("status") == "ok":
            found += gates.environment_differences(ours.get("environment"), theirs.get("environment"))
    return list(dict.fromkeys(found))


def weights_from(facts: Mapping) -> str | None:
    """What a model's checkpoint holds where it is a GGUF file of quantized weights, in words; else None."""
    stored = facts.get("stored") or {}
    if stored.get("bits_per_weight", FLOAT_BITS) >= FLOAT_BITS:
        return None
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in stored["types"].items())
    return f"a GGUF file of {stored['bits_per_weight']:.1f} bits a weight ({shares})"


def size_class(parameters: float | None) -> str | None:
    """The study's classes: small below 1e9 parameters, medium to 6e9, large above."""
    if parameters is None:
        return None
    return "small" if parameters < 1e9 else "medium" if parameters <= 6e9 else "large"
