"""Speed, latency, memory and roofline of one cell, out of its raw samples. Megabytes are 1e6 bytes."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from workflow.tradeoff import precision, samples, stats
from workflow.tradeoff.summarize.cells import Cell
from workflow.tradeoff.words import number

MEGA = 1e6
ASTRAY = 3  # times the median: a call of the study's protocol that the mean must not be read with


def requested(cell: Cell) -> str:
    """The device that the cell's work is meant to run on: a variant may ask for the CPU provider by its options."""
    return "cpu" if cell.spec.option("provider") == "cpu" else cell.speed["device"]


def replicates(speed: Mapping, protocol: str, role: str) -> list[dict]:
    """The processes of a role with the samples that count, in the order they ran; empty when there is none."""
    runs = (speed.get("protocols") or {}).get(protocol, {}).get("replicates", [])
    counted = [{**run, "samples": samples.clean(run)} for run in runs if run["role"] == role]
    return sorted((run for run in counted if run["samples"]), key=lambda run: run["replicate"])


def pooled_itl(run: Mapping) -> np.ndarray:
    """All inter-token times (n,) of a replicate, seconds."""
    return np.concatenate([sample["itl_s"] for sample in run["samples"]])


def speed_columns(speed: Mapping) -> dict:
    """Speed, latency and their intervals over processes; ratios and theirs over pairs of processes."""
    line: dict = {}
    own = replicates(speed, "standard", "cell")
    if own:
        line |= triple("decode_tokens_per_s", stats.median_interval(_values(own, samples.decode_rate)))
        line |= triple("ttft_ms", stats.median_interval(_values(own, lambda sample: 1e3 * sample["ttft_s"])))
        for percent in (50, 90, 99):
            values = [1e3 * float(np.percentile(pooled_itl(run), percent)) for run in own]
            line |= triple(f"itl_p{percent}_ms", stats.median_interval(values))
        line |= ratio("speedup", speed, "standard", samples.decode_rate)
        line |= ratio("ttft_ratio", speed, "standard", samples.first_token_seconds)
        line |= ratio("throughput_ratio", speed, "standard", samples.throughput)
        line |= beside(speed)
        line["speed_verdict"] = _speed_verdict(speed, line)
        line |= reached(speed, own)
        usual = line["itl_p50_ms"] / 1e3
        harness = [run["harness_s"] for run in own if run.get("harness_s") is not None]
        line["harness_pct"] = 100 * statistics.median(harness) / usual if harness else None
        line["drift_pct"] = drift(own)
        line |= energy_columns(own, (speed.get("proof") or {}).get("idle_energy"))
    short = replicates(speed, "study", "cell")
    if short:
        seconds = [sample["total_s"] for run in short for sample in run["samples"]]
        tokens = [sample["new_tokens"] for run in short for sample in run["samples"]]
        line["study_tokens_per_s"] = sum(tokens) / sum(seconds)
        line["study_s_mean"] = statistics.fmean(seconds)
        line["study_s_median"] = statistics.median(seconds)
        line["study_s_sd"] = statistics.stdev(seconds) if len(seconds) > 1 else None
        line |= ratio("study_speedup", speed, "study", samples.study_rate)
    return line


def beside(speed: Mapping) -> dict:
    """The baseline's speed and time to first token in the processes that took turns with the cell's."""
    runs = replicates(speed, "standard", "baseline")
    if not runs:
        return {}
    return {
        "baseline_tokens_per_s": stats.median_interval(_values(runs, samples.decode_rate)).value,
        "baseline_ttft_ms": 1e3 * stats.median_interval(_values(runs, samples.first_token_seconds)).value,
    }


def astray(speed: Mapping) -> str:
    """What is wrong with the calls of the study's protocol, in words: all were disturbed, or one took far longer than
    the others; empty where neither is so.
    """
    seconds = [sample["total_s"] for run in replicates(speed, "study", "cell") for sample in run["samples"]]
    if not seconds:
        ran = (speed.get("protocols") or {}).get("study", {}).get("replicates")
        return "no figure by the paper's protocol: others took the machine in each of its calls" if ran else ""
    if len(seconds) < 3:
        return ""
    usual, longest = statistics.median(seconds), max(seconds)
    if longest < ASTRAY * usual:
        return ""
    return (
        f"by the paper's protocol one of {len(seconds)} calls took {number(longest)} s, the median {number(usual)} s: "
        "its mean, and the tokens/s of its tables, follow that one call"
    )


def energy_columns(own: Sequence[Mapping], idle: Mapping | None, sequences: int = 1) -> dict:
    """Joules a token and watts while it generates, watts of the same counter while it waits, and which counter.

    A token is one of any of the ``sequences`` that are generated at once.

    Where nothing measured it, only ``energy_source``, the reason. Empty for files of before there was a counter.
    """
    taken = [sample for run in own for sample in run["samples"] if "energy" in sample]
    read = [sample for sample in taken if "joules" in sample["energy"]]
    if not read:
        return {"energy_source": taken[0]["energy"]["reason"]} if taken else {}
    joules = sum(sample["energy"]["joules"] for sample in read)
    tokens = sequences * sum(1 + len(sample["itl_s"]) for sample in read)
    waiting = idle["joules"] / idle["seconds"] if idle and "joules" in idle else None
    return {
        "joules_per_token": joules / tokens,
        "watts": joules / sum(sample["energy"]["seconds"] for sample in read),
        "idle_watts": waiting,
        "energy_source": read[0]["energy"]["source"],
    }


def _values(runs: Sequence[Mapping], value) -> list[list[float]]:
    return [[value(sample) for sample in run["samples"]] for run in runs]


def reached(speed: Mapping, own: Sequence[Mapping]) -> dict:
    """How sharp the speedup is (the baseline's: its speed), by how many processes and turns, and how they lived."""
    protocol = speed["protocols"]["standard"]
    alone = speed["variant"] == speed["baseline"] or protocol["pairing"] == "alone"
    every = speed["protocols"]["standard"]["replicates"]
    logs = samples.pairs(every, samples.decode_rate, alone)
    line = {"replicates": len(own), "turns": sum(map(len, logs)), "pairing": protocol["pairing"]}
    line["retaken"] = sum(len(run["rejected"]) for run in every)
    if len(logs) < 2:
        return {**line, "noisy": "true"}
    half = precision.half_width(np.array([np.median(turns) for turns in logs]), protocol["pairs"])
    wide = half > np.log1p(protocol["precision"])
    return {**line, "half_width_pct": 100 * float(np.expm1(half)), "noisy": str(bool(wide)).lower()}


def triple(name: str, interval) -> dict:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def ratio(name: str, speed: Mapping, protocol: str, value) -> dict:
    """Paired ratio over the turns that the cell and its baseline both have; 1 for the baseline itself."""
    if speed["variant"] == speed["baseline"]:
        return {name: 1.0, f"{name}_low": 1.0, f"{name}_high": 1.0}
    pairs = samples.pairs(speed["protocols"][protocol]["replicates"], value)
    first = speed["protocols"]["standard"]["pairs"]
    return triple(name, stats.paired_ratio(pairs, first)) if pairs else {}


def _speed_verdict(speed: Mapping, line: Mapping) -> str | None:
    if speed["variant"] == speed["baseline"]:
        return "baseline"
    if line.get("speedup") is None:
        return None
    return stats.speed_verdict(line["speedup_low"], line["speedup_high"])


def drift(runs: Sequence[Mapping]) -> float | None:
    """Spread of the calibration loop over the samples, (longest - shortest) / median, in percent.

    The longest and the shortest tenth are left out, from four loops on at least one of each: one hiccup is no drift.
    """
    loops = sorted(sample["calibration_s"] for run in runs for sample in run["samples"] if sample.get("calibration_s"))
    if not loops:
        return None
    out = max(1, len(loops) // 10) if len(loops) >= 4 else 0
    kept = loops[out : len(loops) - out]
    return 100 * (kept[-1] - kept[0]) / statistics.median(loops)


def memory_columns(speed: Mapping, baseline: Cell | None) -> dict:
    """Memory in MB, and the reduction of the weights against the baseline's own cell in percent."""
    memory = speed.get("memory") or {}
    line = {
        f"{name}_mb": None if memory.get(f"{source}_bytes") is None else memory[f"{source}_bytes"] / MEGA
        for name, source in (
            ("disk", "disk"), ("weight", "weight"), ("cache", "cache"), ("peak", "decode_peak"),
            ("load_peak", "load_peak"), ("before_load", "before_load"),
        )
    }  # fmt: skip
    line["memory_kind"] = memory.get("kind")
    line["cache_tokens"] = memory.get("cache_length")
    line["memory_mb"] = None if line["weight_mb"] is None else line["weight_mb"] + (line["cache_mb"] or 0)
    base = (baseline.speed.get("memory") or {}) if baseline else {}
    if line["weight_mb"] is not None and base.get("weight_bytes"):
        line["memory_reduction_pct"] = 100 * (1 - line["weight_mb"] * MEGA / base["weight_bytes"])
    return line


def bytes_per_token(cell: Cell) -> float | None:
    """Bytes that one decoded token reads: all weights in memory but a looked-up table, and the cache.

    The engine's proof says which bytes a token does not read. Where it does not, a table of embeddings, which gives
    one row a token, is left out if it lies apart from the LM head: if the weights without it still hold every linear
    weight. (A tied head shares it; an ONNX graph may hold a copy.)
    """
    proof, memory = cell.speed.get("proof") or {}, cell.speed.get("memory") or {}
    total, cache = memory.get("weight_bytes"), memory.get("cache_bytes") or 0
    if not total:
        return None
    if proof.get("unread_bytes") is not None:
        return total - proof["unread_bytes"] + cache
    size = _float_size(proof.get("weight_bytes") or {})
    linear, quantized = proof.get("linear_weights") or 0, proof.get("linear_quantized") or 0
    # of a published checkpoint the bits are not known here: the most that a quantized weight has
    products = quantized * (cell.spec.bits or 8) / 8 + (linear - quantized) * size
    table = (cell.facts.get("embedding_parameters") or 0) * size
    read = total - table if table and total - table >= products else total
    return read + cache


def _float_size(weight_bytes: Mapping[str, int]) -> int:
    """Bytes of a number of the floating-point type that holds the most weights; 4 where there is none."""
    floats = {name: count for name, count in weight_bytes.items() if "float" in name and "float8" not in name}
    largest = max(floats, key=floats.get, default="float32")
    return 2 if largest.endswith("16") else 8 if largest.endswith("64") else 4


def proof_columns(cell: Cell) -> dict:
    """Quantized fraction, and the roofline by the bandwidth (GB/s, of 1e9 bytes) measured beside the cell."""
    proof = cell.speed.get("proof") or {}
    read = bytes_per_token(cell)
    line = {name: proof.get(name) for name in ("quantized_fraction", "bits_per_weight")} | {"bytes_per_token": read}
    bandwidth = (cell.speed.get("bandwidth") or {}).get("bytes_per_s")
    line["bandwidth_gb_per_s"] = bandwidth / 1e9 if bandwidth else None
    own = replicates(cell.speed, "standard", "cell")
    if bandwidth and read and own:
        rate = stats.median_interval(_values(own, samples.decode_rate)).value
        line["mbu_pct"] = 100 * read * rate / bandwidth
        line["roofline_label"] = roofline_label(line["mbu_pct"], cell, proof)
    return line


def roofline_label(mbu_pct: float, cell: Cell, proof: Mapping) -> str:
    """What holds the cell back; half of the measured bandwidth and more counts as bound by it."""
    if proof.get("heavy_elsewhere"):
        return "fallback-bound"
    if not cell.spec.cache:
        return "recompute-bound"
    if mbu_pct >= 50:
        return "bandwidth-bound"
    if requested(cell) == "cuda":
        kernels = (cell.speed.get("kernels") or {}).get("kernels_per_token")
        return f"launch-bound ({kernels:.0f} kernels per token)" if kernels else "launch-bound"
    return "compute-bound"
