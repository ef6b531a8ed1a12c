"""The speed and quality file of one cell of a synthetic study, from known truths, with a planted fault if asked."""

import hashlib

import numpy as np

from workflow.tradeoff.loaded import corpus_digest
from workflow.tradeoff.variants import VARIANTS

# variant: (seconds per token relative to the baseline, added NLL in nats)
TRUTHS = {
    "torch-fp32": (1.0, 0.0),
    "torch-bf16": (1.005, 0.0),
    "bnb-int8": (1.8, 0.012),
    "bnb-nf4": (0.9, 0.09),
    "onnx-fp32": (2.4, 0.0),
    "onnx-int8": (1.6, 0.05),
    "onnx-fp32-kv": (0.7, 0.0),
    "onnx-int8-kv": (0.35, 0.05),
    "onnx-int4-kv": (0.4, 0.12),
    "torch-fp16": (1.0, 0.0),
    "bnb-int8-t0": (5.0, 0.012),
    "torch-fp16-graph": (0.1, 0.0),
    "bnb-int8-t0-graph": (0.16, 0.012),
    "bnb-nf4-graph": (0.12, 0.09),
    "int8-graph": (0.07, 0.002),
}
# variant: kernels of a decode step, and how long the device is busy with them, as a share of the baseline's step
KERNELS = {
    "torch-fp16": (420, 0.09),
    "bnb-int8": (1900, 0.3),
    "bnb-int8-t0": (1400, 0.16),
    "bnb-nf4": (700, 0.12),
    "torch-fp16-graph": (300, 0.09),
    "bnb-int8-t0-graph": (1400, 0.15),
    "bnb-nf4-graph": (650, 0.11),
    "int8-graph": (310, 0.06),
}

# how seconds per token relative to the baseline grow with the batch: by this power of it
BATCH_POWERS = {"bnb-int8": -0.5, "onnx-int8-kv": 0.5, "onnx-int4-kv": 0.9}

MODELS = {"tiny-a": 1.3e8, "tiny-b": 8.2e7, "medium-c": 1.1e9, "medium-d": 1.24e9}

ENVIRONMENT = {
    "device": "cpu",
    "threads": 1,
    "machine": {"cpu": "Test CPU @ 2.0 GHz", "cores": 2, "memory_gb": 8.0, "governor": "performance", "os": "Linux"},
    "gpu": None,
    "libraries": {"torch": "2.13.0", "transformers": "5.24.0", "onnxruntime": "1.32.0", "bitsandbytes": "0.50.2"},
    "image": "host",
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    "digest": "a" * 64,
}

PROMPTS = ("Hello, how are you?", "What is the capital of France?", "Tell me a joke.")
TEXTS = (
    " I am fine, thank you. The weather is pleasant today, and I hope that you are well.",
    " The capital of France is Paris, a large city on the river Seine with many museums.",
    " Why did the scientist trust no atom? Because atoms make up everything in the world.",
)


CORPUS = {"name": "synthetic-wiki", "license": "CC BY-SA 3.0", "rows": ["Words.\n"], "documents": [0]}


def digest(*names: str) -> str:
    return hashlib.sha256("/".join(names).encode()).hexdigest()


def digests(model: str, variant: str, baseline: str, **more: str) -> dict:
    """What a stage loads: here a name gives its digest."""
    folders = {"artifact": VARIANTS[variant].artifact, "baseline": VARIANTS[baseline].artifact}
    found = {role: digest(*([model] if name == "model" else [model, name])) for role, name in folders.items()}
    return found | {"model": digest(model), **more}


def speed(model, variant, baseline, fault, rng, replicates, protocols, where=ENVIRONMENT) -> dict:
    """One speed file of the contract."""
    head = {
        "schema": 2, "study": "synthetic", "model": model, "variant": variant, "baseline": baseline,
        "device": where["device"], "threads": 1, "status": "ok", "reason": "",
        "digests": digests(model, variant, baseline),
    }  # fmt: skip
    environment = dict(where)
    if fault == "other_machine":
        environment = {**environment, "machine": {**where["machine"], "cpu": "Other CPU"}, "digest": "d" * 64}
    if fault in ("out_of_memory", "unsupported", "hung", "error"):
        return {**head, "status": fault, "reason": f"planted {fault}", "environment": environment}
    factor, _ = TRUTHS[variant]
    on_gpu = where["device"] == "cuda"
    # the baseline reads its weights at 12 GB/s, or at 240 GB/s on a GPU
    base = MODELS[model] * 4 / (240e9 if on_gpu else 12e9)
    noise = 0.25 if fault == "noisy" else 0.015
    roles = ("cell",) if variant == baseline else ("cell", "baseline")
    standard, short = [], []
    for replicate in range(replicates):
        drift = 1 + rng.normal(0, 0.02)  # hits the cell and its baseline alike
        for order, role in enumerate(roles):
            name = variant if role == "cell" else baseline
            seconds = base * (factor if role == "cell" else 1.0) * drift * (1 + rng.normal(0, noise))
            growth = 0.0 if VARIANTS[name].cache else 0.01
            samples = [
                {
                    "turn": turn, "ttft_s": seconds * 3, "calibration_s": 0.01 * drift, "disturbed": "",
                    "itl_s": [seconds * (1 + growth * step) * (1 + abs(rng.normal(0, 0.03))) for step in range(31)],
                }
                for turn in range(3)
            ]  # fmt: skip
            standard.append(
                {
                    "role": role, "replicate": replicate, "order": order, "started": 1.7e9 + replicate * 10 + order,
                    "load_s": 1.0, "samples": samples, "rejected": [], "harness_s": 2e-6,
                }
            )  # fmt: skip
            totals = [{"turn": turn, "total_s": seconds * 12, "new_tokens": 10} for turn in range(3)]
            short.append({"role": role, "replicate": replicate, "samples": totals})
    every = {
        "standard": {
            "prompt_tokens": 32, "new_tokens": 32, "warmup": 1, "turns": 3, "pairs": 4, "precision": 0.05,
            "pairing": "alone" if variant == baseline else "live", "pairing_reason": "", "replicates": standard,
        },
        "study": {
            "prompt": PROMPTS[0], "prompt_tokens": 6, "new_tokens": 10, "warmup": 1, "replicates": short,
        },
    }  # fmt: skip
    if fault == "disturbed":
        head |= {"status": "disturbed", "reason": "planted disturbed"}
    return {
        **head,
        "protocols": {name: every[name] for name in protocols},
        "memory": memory(model, variant),
        "proof": proof(model, variant, fault, where["device"]),
        "telemetry": None,
        "kernels": kernels(variant, base) if on_gpu else None,
        "bandwidth": {"bytes_per_s": 3e12 if on_gpu else 14e9, "method": "read of 1 GB"},
        "environment": environment,
    }


def under_load(found, load, fault, rng) -> dict:
    """An entry of ``loads`` of a speed file: the standard load's samples, slower as the batch and the prompt grow."""
    name, sequences, prompt, new = load
    entry = {"name": name, "sequences": sequences, "prompt_tokens": prompt, "new_tokens": new}
    if fault == "out_of_memory_16" and sequences == 16:
        return {**entry, "status": "out_of_memory", "reason": "planted out_of_memory"}
    power = BATCH_POWERS.get(found["variant"], 0.0)
    standard = found["protocols"]["standard"]
    runs = []
    for run in standard["replicates"]:
        # of the baseline itself, the cell is the baseline
        slower = sequences**0.3 * (sequences**power if run["role"] == "cell" else 1)
        taken = []
        for sample in run["samples"]:
            times = [seconds * slower * (1 + rng.normal(0, 0.005)) for seconds in sample["itl_s"]]
            taken.append({**sample, "itl_s": times, "ttft_s": sample["ttft_s"] * sequences * prompt / 32})
        runs.append({**run, "samples": taken})
    bytes_ = {"cache_bytes": sequences * 900_000 * prompt // 32, "cache_length": prompt + new}
    kept = ("load_peak_bytes", "decode_peak_bytes", "before_load_bytes", "kind")
    return {
        **entry, "status": "ok", "reason": "", "pairing": standard["pairing"], "pairing_reason": "",
        "memory": {key: found["memory"][key] for key in kept} | bytes_, "replicates": runs,
    }  # fmt: skip


def kernels(variant, base) -> dict:
    """The profile of a decode step; base: seconds of the baseline's."""
    count, share = KERNELS[variant]
    wall = base * TRUTHS[variant][0]
    return {
        "steps": 8, "kernels_per_token": float(count), "copies_per_token": 2.0,
        "launches_per_token": 1.0 if variant.endswith("-graph") else float(count), "wall_s_per_token": wall,
        "busy_s_per_token": base * share, "waiting_s_per_token": max(0.0, wall - base * share), "top": [],
    }  # fmt: skip


def memory(model, variant) -> dict:
    weights = sum(proof(model, variant, None)["weight_bytes"].values())
    return {
        "disk_bytes": weights + 1_000_000, "weight_bytes": weights, "cache_bytes": 900_000, "cache_length": 64,
        "load_peak_bytes": weights + 500_000_000, "decode_peak_bytes": weights + 400_000_000,
        "before_load_bytes": 300_000_000, "kind": "RSS high-water",
    }  # fmt: skip


def proof(model, variant, fault, device="cpu") -> dict:
    """What ran: a fifth of the weights is an embedding that stays as it is."""
    spec = VARIANTS[variant]
    linear, rest = int(MODELS[model] * 0.8), int(MODELS[model] * 0.2)
    dtype = {32: "float32", 16: "bfloat16", 8: "int8", 4: "uint8"}[spec.bits]
    fraction = 0.1 if fault == "not_quantized" else 1.0
    weights = {dtype: linear * spec.bits // 8}
    weights["float32"] = weights.get("float32", 0) + rest * 4
    result = {
        "weight_bytes": weights,
        "linear_weights": linear,
        "linear_quantized": int(linear * fraction),
        "quantized_fraction": fraction,
        "cache": spec.cache,
        "cache_growth": {"lengths": [8, 64], "step_s": [0.05, 0.051], "pass_s": [0.05, 0.3]},
    }
    if spec.engine == "onnx":
        heavy = "MatMulInteger" if spec.precision == "int8" else "MatMul"
        elsewhere = ["MatMulInteger"] if fault == "fell_back" else []
        providers = {"CPUExecutionProvider": 200}
        return {**result, "nodes": {heavy: 60}, "providers": providers, "heavy_elsewhere": elsewhere, "memcpy": 0}
    return {**result, "parameters": {f"{dtype}@{device}": linear + rest}}


def quality(model, variant, baseline, fault, seed, where=ENVIRONMENT) -> tuple[dict, dict]:
    """One quality file of the contract and the arrays of its npz."""
    head = {
        "schema": 1, "study": "synthetic", "model": model, "variant": variant, "baseline": baseline,
        "status": "ok", "reason": "",
        "corpus": {"name": "synthetic-wiki", "sha256": "e" * 64, "license": "CC BY-SA 3.0"},
        "digests": digests(model, variant, baseline, corpus=corpus_digest(CORPUS)),
        "environment": where,
    }  # fmt: skip
    if fault == "random":
        return {**head, "status": "not_applicable", "reason": "random weights"}, {}
    if fault in ("out_of_memory", "unsupported", "hung", "error", "quality_error"):
        status = "error" if fault == "quality_error" else fault
        return {**head, "status": status, "reason": f"planted {fault}"}, {}
    shared = np.random.default_rng([seed, list(MODELS).index(model)])  # the text: the same for every variant
    count, blocks = 4096, 16
    own = np.random.default_rng([seed, sum(map(ord, variant))])
    _, added = TRUTHS[variant]
    nll = shared.gamma(2.0, 1.6, count)
    if added:
        nll = nll + own.normal(added, 0.15, count)
    if fault == "garbage":
        nll = nll + 6.0
    nll = np.maximum(nll, 0).astype(np.float32)
    mean = float(nll.astype(np.float64).mean())
    if fault == "nan":
        nll[7] = np.nan
        mean = None
    arrays = {}
    conventions = {}
    for name in ("windows-512", "study"):
        arrays[f"{name}/nll"] = nll
        arrays[f"{name}/block"] = np.repeat(np.arange(blocks), count // blocks).astype(np.int32)
        arrays[f"{name}/token"] = np.arange(count, dtype=np.int32)
        conventions[name] = {
            "tokens": count, "windows": blocks, "bos": "never", "join": "\n\n", "mean_nll": mean,
            "perplexity": None if mean is None else float(np.exp(mean)), "tokens_per_s": 900.0,
        }  # fmt: skip
    if mean is not None:
        conventions["study"] |= {"paper_loss": mean + 0.1, "paper_perplexity": float(np.exp(mean + 0.1))}
    divergence = None
    if variant != baseline:
        kl = 7.0 if fault == "garbage" else 1e-6 + added / 2
        divergence = {
            "windows-512": {
                "tokens": 4096, "kl_mean": kl, "kl_p50": kl * 0.5, "kl_p90": kl * 3, "kl_p99": kl * 12,
                "kl_max": kl * 40, "kl_sem": kl * 0.05, "dp_mean": -added / 20, "dp_rms": added / 3 + 1e-5,
                "same_top": 1 - added * 1.2, "same_top_sem": 0.004, "compaction_error_bound": 1e-4,
            }
        }  # fmt: skip
    generated = [
        {
            "prompt": prompt, "text": "zx qq zx qq zx qq" if fault == "garbage" else text,
            "token_ids": [1, 2, 3, 4], "first_difference": None if not added else 2,
        }
        for prompt, text in zip(PROMPTS, TEXTS, strict=True)
    ]  # fmt: skip
    return {**head, "conventions": conventions, "divergence": divergence, "generated": generated}, arrays
