"""Where the CPU time of a scoring pass goes: roof of the matrix products, page faults, shares of torch's operations.

    python -m tests.bench.pass_profile --model results/demo/models/smollm2 --window 512 --batch 2 [--keep]

One thread, CPU seconds, the best of three: what else runs on the machine disturbs them little. ``--keep``: with
``keep_freed_memory``; without, as an evaluated cell and any program that uses torch.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.bench.allocator import keep_freed_memory
from workflow.tradeoff import engines
from workflow.tradeoff.evaluate import scoring
from workflow.tradeoff.evaluate.conventions import Plan, Window
from workflow.tradeoff.variants import VARIANTS


def best(function, times: int = 3) -> tuple[float, int]:
    """Least CPU seconds of a call, and its page faults, after one call that warms up."""
    function()
    seen = []
    for _ in range(times):
        faults, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
        function()
        seen.append((time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults))
    return min(seen)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2, help="windows of one pass")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    if args.keep:
        keep_freed_memory()
    engine = engines.load(VARIANTS["torch-fp32"], args.model, args.model, "cpu", 1)
    square, out = torch.randn(2048, 2048), torch.empty(2048, 2048)
    peak = 2 * 2048**3 / best(lambda: torch.mm(square, square, out=out))[0]
    floor = peak / (2 * engine.proof()["linear_weights"])
    print(f"float32 matrix product: {peak / 1e9:.0f} GFLOP/s; its linear layers alone: {floor:.0f} tokens/s")
    ids = torch.randint(0, engine.network.config.vocab_size, (args.batch, args.window + 1))
    plan = Plan("windows", [Window(row.numpy(), args.window, 0) for row in ids], "never", "", args.window)

    def like_the_harness():
        for row in ids[:, :-1]:
            logp = torch.log_softmax(engine.network(row[None]).logits, dim=-1)
            logp.argmax(dim=-1)

    passes = {
        "body alone": lambda: engine.network.base_model(ids[:, :-1], use_cache=False),
        "ours": lambda: scoring.score(engine, plan, args.window * args.batch),
        "lm-eval's way, batch 1": like_the_harness,
    }
    for name, function in passes.items():
        seconds, faults = best(function)
        rate = plan.tokens / seconds
        print(
            f"{name:22} {rate:5.0f} tokens/CPU s, {rate / floor:4.0%} of the roof, {faults / plan.tokens:5.1f} faults"
        )
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        passes["ours"]()
    operations = sorted(recorded.key_averages(), key=lambda entry: -entry.self_cpu_time_total)
    total = sum(entry.self_cpu_time_total for entry in operations)
    for entry in operations[:10]:
        print(f"{entry.self_cpu_time_total / total:6.1%} {entry.count:5} × {entry.key}")


if __name__ == "__main__":
    main()
