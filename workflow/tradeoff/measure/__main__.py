"""Measure one cell: speed, memory and proof, in fresh processes that take turns with its baseline's.

    python -m workflow.tradeoff.measure --study demo --model M --variant onnx-int8-kv \\
        --artifact results/demo/artifacts/M/onnx-dynamic-kv --baseline torch-fp32 \\
        --baseline-artifact results/demo/models/M ... --output results/demo/speed/M/onnx-int8-kv.json

How turns are taken, and when there are enough: ``pairs``; at further loads: ``under_load``. Only raw times are written:
statistics come later; with them the digests of what was loaded (``loaded``).
"""

import os
import sys
from pathlib import Path

from workflow.tradeoff import errors, files, loaded, loads, variants
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.measure import pairs, under_load
from workflow.tradeoff.measure.pairs import PROOF, Plan
from workflow.tradeoff.measure.process import Runner
from workflow.tradeoff.run import environment, hang, machines
from workflow.tradeoff.variants import VARIANTS

SCHEMA = 2  # of the file; 1 had no turns
AGAIN = ": delete {} and run again when the machine is quiet"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def protocols(taken: dict, args) -> dict:
    """The raw samples sorted under the two protocols."""
    standard = [{key: value for key, value in entry.items() if key != "study"} for entry in taken["processes"]]
    study = [
        {key: entry[key] for key in ("role", "replicate")}
        | {key: entry["study"][key] for key in ("samples", "rejected")}
        for entry in taken["processes"]
        if entry["study"]["samples"]
    ]
    return {
        "standard": {
            **{key: getattr(args, key) for key in ("prompt_tokens", "new_tokens", "warmup", "turns", "pairs")},
            **{key: getattr(args, key) for key in ("precision", "budget_s", "lost_share")},
            **{key: taken[key] for key in ("pairing", "pairing_reason")},
            "replicates": standard,
        },
        "study": {
            "prompt": "Hello, how are you?",
            "prompt_tokens": taken["processes"][0]["study"]["prompt_tokens"],
            "new_tokens": 10,
            "replicates": study,
        },
    }


def measure(args) -> dict:
    """What is written of a cell beside its head; ``status`` and ``reason`` where others disturbed it."""
    flags = []
    for name in ("model_folder", "device", "threads"):
        flags += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    fresh = args.device == "cuda"  # nothing that may have touched CUDA is forked
    limit = hang.Limit("measure", args.hung_after_s, args.output)
    common = {"fresh": fresh, "model": args.model_folder, "limit": limit}
    cell = Runner(args.variant, args.artifact, tuple(flags), **common)
    baseline = None
    if args.variant != args.baseline:
        baseline = Runner(args.baseline, args.baseline_artifact, tuple(flags), **common)
    plan = Plan(
        load={"prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens},
        **{name: getattr(args, name) for name in ("warmup", "turns", "pairs", "precision", "budget_s", "study_runs")},
        lost_share=args.lost_share,
    )
    apart = "the config asks for it (measure.pairing)" if args.pairing == "apart" else ""
    taken = pairs.measure(cell, baseline, plan, apart)
    if reason := pairs.disturbed(taken["processes"], plan, alone=baseline is None):
        reason += AGAIN.format(args.output)
    found = {
        **({"status": "disturbed", "reason": reason} if reason else {}),
        "protocols": protocols(taken, args),
        **{key: taken[key] for key in PROOF},
    }
    if args.loads:
        found["loads"] = under_load.measure(cell, baseline, plan, args.loads, apart, AGAIN.format(args.output))
    return found


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    for name in ("study", "model"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("variant", "baseline"):
        parser.add_argument(f"--{name}", choices=VARIANTS, required=True)
    for name in ("artifact", "baseline-artifact", "model-folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("warmup", "pairs", "turns", "prompt-tokens", "new-tokens", "study-runs", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--precision", type=float, required=True, help="half-width of the speedup that is enough")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds within which the last pair should end")
    parser.add_argument("--lost-share", type=float, required=True, help="of a sample's time that others may take")
    parser.add_argument("--pairing", choices=("auto", "apart"), required=True)
    parser.add_argument("--loads", type=loads.parse, default=[], metavar="JSON", help="further loads, each as its Load")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    hang.add_flag(parser)
    machines.add_flag(parser)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    # Snakemake exports its own thread counts, and not every library asks torch for them
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(args.threads)))
    result = {
        "schema": SCHEMA,
        **{key: getattr(args, key) for key in ("study", "model", "variant", "baseline", "device", "threads")},
        **({"machine": args.machine[0]} if args.machine else {}),
        "status": "ok",
        "reason": "",
    }
    folders = {"artifact": args.artifact, "model": args.model_folder, "baseline": args.baseline_artifact}
    with loaded.digests(**folders) as result["digests"]:
        try:
            machines.check(args.machine, args.output)
            result |= measure(args)
        except CellFailure as failed:
            result |= {"status": failed.status, "reason": failed.reason}
    if result["status"] != "ok":
        print(f"{args.model} × {args.variant}: {result['status']}: {result['reason']}", file=sys.stderr)
    device = machines.device_here(args.device) if args.machine else args.device
    result["environment"] = environment.collect(device, args.threads)
    files.write_json(args.output, result)


if __name__ == "__main__":
    errors.run(main)
