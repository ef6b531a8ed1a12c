"""The study's own tables, each made again from this run's cells. Summary in, table out; nothing is read from disk.

A table's note says by which protocol its figures were taken.
"""

import math

import pandas as pd

from workflow.tradeoff.settings import schema
from workflow.tradeoff.variants import VARIANTS

STUDY_CONVENTION = "study"
SHOWN = ("model", "variant", "precision")


def precision(variant: str) -> str:
    """The study's word for a variant."""
    return VARIANTS[variant].label


def family(variant: str) -> str:
    """The rows of the study's tables by precision: its engines, apart where the cache is."""
    spec = VARIANTS[variant]
    if spec.engine == "onnx":
        return "ONNX Runtime, KV cache" if spec.cache else "ONNX Runtime, no cache"
    if spec.engine in ("llamacpp", "vllm"):
        return schema()["engines"][spec.engine]["title"]
    return "PyTorch" if spec.engine == "hf" else f"PyTorch, {spec.engine}"


def within_family(variant: str) -> str:
    """A variant's column in a table by precision: its label without the words that name the family."""
    spec = VARIANTS[variant]
    label = spec.label
    for family in ("ONNX KV Cache", "ONNX", "GGUF", "vLLM"):
        label = label.removeprefix(family).strip()
    return label or spec.precision.upper()


def study_protocol(summary: pd.DataFrame) -> str:
    """The protocol of the study's speed tables: its own where it was run, else the standard one."""
    return "study" if summary["study_tokens_per_s"].notna().any() else "standard"


def _speeds(summary: pd.DataFrame) -> pd.DataFrame:
    """Model, variant, label and the speed and speedup of the protocol that the study's tables show."""
    own = study_protocol(summary) == "study"
    names = ("study_tokens_per_s", "study_speedup") if own else ("decode_tokens_per_s", "speedup")
    table = pd.DataFrame({"model": summary["model"], "variant": summary["variant"]})
    table["precision"] = [precision(variant) for variant in summary["variant"]]
    table["tokens_per_s"] = summary[names[0]]
    for end in ("", "_low", "_high"):
        table[f"speedup{end}"] = summary[names[1] + end]
    return table


def benchmark(summary: pd.DataFrame) -> pd.DataFrame:
    """Speed, memory of the weights, speedup, memory reduction, quality score and standard deviation."""
    table = _speeds(summary)
    table.insert(4, "weight_gb", summary["weight_mb"] / 1e3)
    table["memory_reduction_pct"] = summary["memory_reduction_pct"]
    table["quality_score"] = summary["quality_score"]
    table["s_mean"] = summary["study_s_mean"]
    table["s_median"] = summary["study_s_median"]
    table["s_sd"] = summary["study_s_sd"]
    return _with_status(table, summary)


def onnx(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``benchmark`` that ran in ONNX Runtime, against the same model's ``onnx-fp32`` as in the study.

    A ratio of two cells that did not run in turns has no interval; it is only taken where both were compared with
    the one baseline in one environment.
    """
    table = benchmark(summary)
    keep = [VARIANTS[variant].engine == "onnx" for variant in table["variant"]]
    table = table[keep].drop(columns=["s_mean", "s_median", "s_sd"]).reset_index(drop=True)
    reference = table[table["variant"] == "onnx-fp32"].set_index("model")
    # as floats: a study without onnx-fp32 maps onto nothing, which pandas would keep as text
    speedup, weight_gb = (table["model"].map(reference[name]).astype(float) for name in ("speedup", "weight_gb"))
    table["over_onnx_fp32"] = table["speedup"] / speedup
    table["weight_reduction_over_onnx_fp32_pct"] = 100 * (
        1 - table["weight_gb"] / weight_gb.where(table["memory_reduction_pct"].notna())
    )
    return table


def perplexity(conventions: pd.DataFrame) -> pd.DataFrame:
    """Perplexity, average loss and tokens, in the study's convention where it was evaluated.

    The study weighted each row's loss by its tokens and not by its predicted tokens: that figure stands beside.
    """
    table = _study_rows(conventions)
    names = {"nll": "avg_loss", "tokens": "tokens_evaluated"}
    columns = [*SHOWN, "convention", "perplexity", "nll", "tokens", "paper_perplexity", "paper_loss"]
    return table.reindex(columns=columns).rename(columns=names)


def degradation(conventions: pd.DataFrame) -> pd.DataFrame:
    """Each variant's perplexity against its baseline's, with the paired interval."""
    table = _study_rows(conventions)
    base = table[table["variant"] == table["baseline"]].set_index("model")["perplexity"]
    table["baseline_perplexity"] = table["model"].map(base)
    table["delta_perplexity"] = (table["perplexity"] - table["baseline_perplexity"]).where(
        table["degradation_pct"].notna()
    )
    table = table[table["variant"] != table["baseline"]].reset_index(drop=True)
    measures = ["degradation_pct", "degradation_low_pct", "degradation_high_pct", "quality_verdict"]
    return table[[*SHOWN, "baseline", "convention", "baseline_perplexity", "perplexity", "delta_perplexity", *measures]]


def accuracy_drop(summary: pd.DataFrame, conventions: pd.DataFrame) -> pd.DataFrame:
    """Perplexity, quality score and accuracy drop (the rise of the perplexity) of every cell."""
    found = _study_rows(conventions)[["model", "variant", "convention", "perplexity", "degradation_pct"]]
    table = summary[["model", "variant", "quality_score"]].merge(found, on=["model", "variant"], how="left")
    table.insert(2, "precision", [precision(variant) for variant in table["variant"]])
    table = table.rename(columns={"degradation_pct": "accuracy_drop_pct"})
    ordered = table[[*SHOWN, "convention", "perplexity", "quality_score", "accuracy_drop_pct"]]
    # what has speed and no accuracy is not "ok" here
    status = summary["status"].where(summary["status"] != "ok", summary["accuracy_status"])
    return _with_status(ordered, summary.assign(status=status))


def _study_rows(conventions: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: the study's convention, or where it is absent the first one evaluated."""
    if conventions.empty:
        return conventions.assign(precision=None)
    ranked = conventions.assign(
        rank=(conventions["convention"] != STUDY_CONVENTION).astype(int), place=conventions.index
    )
    best = ranked.sort_values(["rank", "place"]).drop_duplicates(["model", "variant"]).sort_values("place")
    best = best.drop(columns=["rank", "place"]).reset_index(drop=True)
    return best.assign(precision=[precision(variant) for variant in best["variant"]])


def by_precision(summary: pd.DataFrame, value: str, best: str, better: str) -> pd.DataFrame:
    """Model and engine by precision: ``value`` in the cells, and the best ``best`` of the row with its variant."""
    rows = []
    table = summary.assign(family=[family(variant) for variant in summary["variant"]])
    columns = list(dict.fromkeys(within_family(variant) for variant in VARIANTS if variant in set(table["variant"])))
    for (model, engine), part in table.groupby(["model", "family"], sort=False):
        line = {"model": model, "engine": engine, **dict.fromkeys(columns, math.nan)}
        for entry in part.to_dict("records"):
            line[within_family(entry["variant"])] = entry[value]
        known = part[part[best].notna()]
        if not known.empty:
            winner = known.loc[known[best].idxmax()]
            line |= {better: winner[best], "of": winner["variant"]}
        rows.append(line)
    return pd.DataFrame(rows, columns=["model", "engine", *columns, better, "of"])


def speed_by_precision(summary: pd.DataFrame) -> pd.DataFrame:
    """Tokens a second by precision and the best speedup over the model's baseline."""
    return by_precision(_speeds(summary), "tokens_per_s", "speedup", "best_speedup")


def memory_by_precision(summary: pd.DataFrame) -> pd.DataFrame:
    """GB of weights in memory by precision and the largest reduction against the model's baseline."""
    table = summary.assign(weight_gb=summary["weight_mb"] / 1e3)
    return by_precision(table, "weight_gb", "memory_reduction_pct", "best_memory_reduction_pct")


def efficiency_matrix(summary: pd.DataFrame) -> pd.DataFrame:
    """Speed, memory and accuracy each as a factor of the baseline, and their product with its word.

    Accuracy is the baseline's perplexity over the variant's. The words: poor below 1 (no better than the baseline),
    fair to 2, high to 4, excellent above; they give the study's own words for the study's own rows.
    """
    table = pd.DataFrame({"model": summary["model"], "variant": summary["variant"]})
    table["precision"] = [precision(variant) for variant in summary["variant"]]
    table["speed_efficiency"] = summary["speedup"]
    table["memory_efficiency"] = 1 / (1 - summary["memory_reduction_pct"] / 100)
    table["accuracy_pct"] = 100 / (1 + summary["degradation_pct"] / 100)
    product = table["speed_efficiency"] * table["memory_efficiency"] * table["accuracy_pct"] / 100
    table["product"] = product
    baseline = summary["variant"] == summary["baseline"]
    table["overall_efficiency"] = [
        "Baseline" if own else overall(value) for own, value in zip(baseline, product, strict=True)
    ]
    return _with_status(table, summary)


def overall(product: float) -> str | None:
    """The word for a product of the three factors; None where one of them is missing."""
    if math.isnan(product):
        return None
    return "Poor" if product < 1 else "Fair" if product < 2 else "High" if product < 4 else "Excellent"


def _with_status(table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    return table.assign(status=list(summary["status"]), reason=list(summary["reason"]))
