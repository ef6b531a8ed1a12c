"""What each GGUF quantization of a model costs: perplexity and its paired change from torch in float32, one table.

    python -m tests.bench.llamacpp_table --model results/demo/models/smollm2-135m --corpus results/demo/corpus/c.json \\
        --convention windows-256 --tokens 4096 --work /tmp/gguf source f32 q8_0 q6_k q4_k_m q4_0

The files are made below ``--work`` where they are not there yet. Every figure is of the same tokens, so the interval of
a change is that of the paired differences, resampled by window.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

from workflow.tradeoff import engines, files, stats
from workflow.tradeoff.engines.llamacpp import FILE, LlamaEngine
from workflow.tradeoff.engines.llamacpp_proof import file_proof
from workflow.tradeoff.evaluate import conventions, scoring
from workflow.tradeoff.prepare import gguf
from workflow.tradeoff.variants import VARIANTS


def plan_of(model: Path, corpus: Path, convention: str, tokens: int) -> conventions.Plan:
    data = files.read_json(corpus)
    vocabulary = conventions.vocabulary(AutoTokenizer.from_pretrained(model), "auto")
    context = AutoConfig.from_pretrained(model).max_position_embeddings
    return conventions.plan(convention, data["rows"], data["documents"], vocabulary, context, tokens or None)


def made(model: Path, mix: str, work: Path, threads: int, calibration: Path | None, scored: Path) -> Path:
    """The GGUF file of a mix; ``-imatrix`` after its name weights it by the calibration text."""
    folder = work / f"gguf-{mix}"
    if not (folder / "manifest.json").is_file():
        recipe = {"quantizer": "gguf", "type": mix.removesuffix("-imatrix"), "imatrix": mix.endswith("-imatrix")}
        flags = ["--model-folder", model, "--recipe", json.dumps(recipe), "--threads", threads, "--output", folder]
        if recipe["imatrix"]:
            flags += ["--calibration", calibration, "--scored", scored]
        gguf.main([str(flag) for flag in flags])
    return folder / FILE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--convention", default="windows-256")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("mixes", nargs="+")
    args = parser.parse_args()
    plan = plan_of(args.model, args.corpus, args.convention, args.tokens)
    kept = args.work / f"torch-fp32-{args.convention}-{plan.tokens}.npy"
    if not kept.is_file():
        baseline = engines.load(VARIANTS["torch-fp32"], args.model, args.model, "cpu", args.threads)
        np.save(kept, scoring.score(baseline, plan, 2048).nll)
    reference = np.load(kept).astype(np.float64)
    print(f"{plan.convention}, {plan.tokens} tokens in {len(plan.windows)} windows")
    print("| file | bits a weight | MB | perplexity | change % [95%] |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| torch-fp32 | 32.00 | | {np.exp(reference.mean()):.3f} | |")
    for mix in args.mixes:
        file = made(args.model, mix, args.work, args.threads, args.calibration, args.corpus)
        engine = LlamaEngine(file, None, "cpu", args.threads, 0)
        scores = scoring.score(engine, plan, 2048)
        nll = scores.nll.astype(np.float64)
        change = stats.degradation_percent(stats.paired_delta(nll, reference, scores.block))
        bits, size = file_proof(file, None, 2)["bits_per_weight"], file.stat().st_size / 1e6
        interval = f"{change.value:+.2f} [{change.low:.2f}, {change.high:.2f}]"
        print(f"| {mix} | {bits:.2f} | {size:.0f} | {np.exp(nll.mean()):.3f} | {interval} |", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
