"""Tables that need more than the summary: raw inter-token times, every convention, proof, text, resources."""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow.tradeoff import loaded
from workflow.tradeoff.summarize import rows_accuracy, rows_speed
from workflow.tradeoff.summarize.cells import Cell

QUANTILES = (0, 1, *range(5, 100, 5), 99, 100)
TELLING = ("MatMul", "Gemm", "Quantize", "Attention", "Conv", "Memcpy")  # products, and what feeds or splits them
HOLDERS = ("export", "quantize", "fuse")  # steps that hold the weights, and must not hold them many times
MEBI_MB = 1.048576  # Snakemake gives max_rss in MiB


def itl(cells: Iterable[Cell], claimed: set[tuple[str, str]]) -> pd.DataFrame:
    """Quantiles of all inter-token times of a cell, pooled over its replicates; only of cells that claim a speed."""
    lines = []
    for cell in cells:
        own = rows_speed.replicates(cell.speed, "standard", "cell") if cell.key in claimed else []
        if own:
            pooled = 1e3 * np.concatenate([rows_speed.pooled_itl(run) for run in own])
            values = np.percentile(pooled, QUANTILES)
            lines += [
                {"model": cell.model, "variant": cell.variant, "quantile_pct": quantile, "itl_ms": float(value)}
                for quantile, value in zip(QUANTILES, values, strict=True)
            ]
    return pd.DataFrame(lines, columns=["model", "variant", "quantile_pct", "itl_ms"])


def growth(cells: Iterable[Cell], claimed: set[tuple[str, str]]) -> pd.DataFrame:
    """What a token takes at each length of the sequence, ms; without a cache these times grow with the length, since
    every token runs the whole sequence again.

    source "answers": median inter-token time of the timed answers, with its quartiles over them. source "proof": the
    least of a few steps after a prompt of that length, which reaches further than the answers do.
    """
    lines = []
    for cell in cells:
        own = rows_speed.replicates(cell.speed, "standard", "cell") if cell.key in claimed else []
        if not own:
            continue
        head = {"model": cell.model, "variant": cell.variant, "cache": "yes" if cell.spec.cache else "no"}
        prompt = cell.speed["protocols"]["standard"]["prompt_tokens"]
        samples = [sample["itl_s"] for run in own for sample in run["samples"]]
        shortest = min(map(len, samples))
        times = 1e3 * np.array([sample[:shortest] for sample in samples])
        low, middle, high = np.percentile(times, (25, 50, 75), axis=0)
        lines += [
            {
                # the first inter-token time follows the prompt and the first new token
                **head, "source": "answers", "length_tokens": prompt + 1 + step, "itl_ms": middle[step],
                "itl_ms_p25": low[step], "itl_ms_p75": high[step],
            }
            for step in range(shortest)
        ]  # fmt: skip
        steps = (cell.speed.get("proof") or {}).get("cache_growth") or {}
        lines += [
            {**head, "source": "proof", "length_tokens": length, "itl_ms": 1e3 * seconds}
            for length, seconds in zip(steps.get("lengths", []), steps.get("step_s", []), strict=True)
        ]
    names = ["model", "variant", "cache", "source", "length_tokens", "itl_ms", "itl_ms_p25", "itl_ms_p75"]
    return pd.DataFrame(lines, columns=names)


def conventions(cells: Iterable[Cell], lines: Mapping[tuple[str, str], Mapping], baselines) -> pd.DataFrame:
    """One row per cell and convention: what was scored, the perplexity, and the paired change.

    lines: the summary's rows by cell. baselines: the baseline cell by model, or absent.
    """
    table = []
    extra = ("paper_loss", "paper_perplexity", "words", "word_perplexity")
    for cell in cells:
        compared = lines[cell.key]["delta_nll"] is not None
        for name, found in (cell.quality.get("conventions") or {}).items():
            line = {
                "model": cell.model, "variant": cell.variant, "baseline": cell.baseline, "convention": name,
                "tokens": found["tokens"], "windows": found.get("windows"), "bos": found.get("bos"),
                "join": repr(found["join"]).strip("'") if found.get("join") is not None else None,
                "nll": found.get("mean_nll"), "perplexity": found.get("perplexity"),
            }  # fmt: skip
            line |= rows_accuracy.paired_columns(cell, baselines.get(cell.model), name) if compared else {}
            line |= {key: found.get(key) for key in extra}
            line["scored_tokens_per_s"] = found.get("tokens_per_s")
            table.append(line)
    names = [
        "model", "variant", "baseline", "convention", "tokens", "windows", "bos", "join", "nll", "perplexity",
        "delta_nll", "delta_nll_low", "delta_nll_high", "degradation_pct", "degradation_low_pct",
        "degradation_high_pct", "quality_verdict", *extra, "scored_tokens_per_s",
    ]  # fmt: skip
    return pd.DataFrame(table, columns=names)


def divergence(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row per cell and convention: KL, the change of the true token's probability and the same-top rate."""
    table = []
    for cell in cells:
        for name, found in (cell.quality.get("divergence") or {}).items():
            table.append({"model": cell.model, "variant": cell.variant, "convention": name, **found})
    names = [
        "model", "variant", "convention", "tokens", "kl_mean", "kl_sem", "kl_p50", "kl_p90", "kl_p99", "kl_max",
        "dp_mean", "dp_rms", "same_top", "same_top_sem", "compaction_error_bound",
    ]  # fmt: skip
    return pd.DataFrame(table).reindex(columns=names)


def proof(cells: Iterable[Cell]) -> pd.DataFrame:
    """What really ran, flattened: digest of the files, weights by dtype, nodes by type and provider, cache in use."""
    table = []
    for cell in cells:
        found = cell.speed.get("proof")
        if not found:
            continue
        growth_facts, kernels = found.get("cache_growth") or {}, cell.speed.get("kernels") or {}
        table.append(
            {
                "model": cell.model, "variant": cell.variant, "device": cell.speed["device"],
                "artifact": loaded.short((cell.speed.get("digests") or {}).get("artifact", "")) or None,
                "linear_weights": found.get("linear_weights"), "linear_quantized": found.get("linear_quantized"),
                "quantized_fraction": found.get("quantized_fraction"),
                "bits_per_weight": found.get("bits_per_weight"),
                "weight_bytes_by_dtype": _listed(found.get("weight_bytes")),
                "parameters_by_place": _listed(found.get("parameters")),
                "nodes_by_type": _listed(telling(found.get("executed") or found.get("nodes") or {})),
                "nodes_by_provider": _listed(found.get("providers")),
                "heavy_elsewhere": ", ".join(map(str, found.get("heavy_elsewhere") or [])) or None,
                "memcpy_nodes": found.get("memcpy"),
                "attention": found.get("attention"),
                "cache": {True: "yes", False: "no"}.get(found.get("cache")),
                "cache_growth": _steps(growth_facts),
                "kernels_per_token": kernels.get("kernels_per_token"),
                "busy_us_per_token": _micro(kernels.get("busy_s_per_token")),
                "waiting_us_per_token": _micro(kernels.get("waiting_s_per_token")),
            }
        )  # fmt: skip
    return pd.DataFrame(table)


def telling(nodes: Mapping[str, int]) -> dict[str, int]:
    """Of a graph's nodes by type those that tell how it computes; the others as one count."""
    told = {name: count for name, count in nodes.items() if any(word in name for word in TELLING)}
    rest = sum(nodes.values()) - sum(told.values())
    return {**told, **({"others": rest} if rest else {})}


def _steps(facts: Mapping) -> str | None:
    """What a decode step took at each length."""
    pairs = zip(facts.get("lengths", []), facts.get("step_s", []), strict=True)
    return ", ".join(f"{1e3 * seconds:.3g} ms at {length} tokens" for length, seconds in pairs) or None


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def _listed(counts: Mapping[str, int] | None) -> str | None:
    """``a 1,000, b 20``: the largest first."""
    items = sorted((counts or {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:,}" for name, value in items) or None


def generated(cells: Iterable[Cell]) -> pd.DataFrame:
    """Every prompt's greedy text, and where it leaves the baseline's."""
    names = ("prompt", "text", "first_difference")
    table = [
        {"model": cell.model, "variant": cell.variant, **{name: entry.get(name) for name in names}}
        for cell in cells
        for entry in cell.quality.get("generated") or []
    ]
    return pd.DataFrame(table, columns=["model", "variant", *names])


def resources(paths: Sequence[Path | str], parameters: Mapping[str, float | None]) -> pd.DataFrame:
    """Seconds and peak resident memory of each rule's run, out of Snakemake's benchmark files.

    paths: .../benchmarks/{rule}/{model}_{what}.tsv. Peak memory is also given as a multiple of the model's float32
    weights, for the models of ``parameters`` {model: count}. A rule whose file is gone (results brought from another
    machine, a folder tidied up) has no row.
    """
    table = []
    for path in sorted(path for path in map(Path, paths) if path.is_file()):
        after = path.parts[path.parts.index("benchmarks") + 1 :] if "benchmarks" in path.parts else path.parts[-2:]
        rule, what = after[0].removesuffix(".tsv"), "/".join(after[1:]).removesuffix(".tsv")
        with open(path, newline="") as file:
            entries = list(csv.DictReader(file, delimiter="\t"))
        seconds = [float(entry["s"]) for entry in entries]
        peaks = [float(entry["max_rss"]) * MEBI_MB for entry in entries if _number(entry.get("max_rss"))]
        peak = max(peaks) if peaks else None
        # the longest name first: one model's name may begin another's
        known = sorted(parameters, key=len, reverse=True)
        model = next((name for name in known if what == name or what.startswith(f"{name}_")), None)
        weights = parameters.get(model)
        table.append(
            {
                "rule": rule, "of": what, "s": statistics.fmean(seconds) if seconds else None, "peak_rss_mb": peak,
                "peak_over_fp32_weights": peak * 1e6 / (4 * weights) if peak and weights and rule in HOLDERS else None,
            }
        )  # fmt: skip
    return pd.DataFrame(table, columns=["rule", "of", "s", "peak_rss_mb", "peak_over_fp32_weights"])


def _number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
