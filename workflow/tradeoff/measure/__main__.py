"""Measure one cell: speed, memory and proof, in fresh processes that alternate with its baseline's.

    python -m workflow.tradeoff.measure --study demo --model M --variant onnx-int8-kv \\
        --artifact results/demo/onnx/M/int8-kv --baseline torch-fp32 --baseline-artifact results/demo/models/M \\
        ... --output results/demo/speed/M/onnx-int8-kv.json

Each replicate is a fresh process of the cell and one of its baseline, in an order that swaps from one to the next, so
that a machine that drifts hits both alike. A cell whose replicates lie further apart than ``--noisy-share`` gets
another round, up to ``--rounds`` and within ``--budget-s``. Only raw times are written: statistics come later.
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff import errors, files
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.run import environment, fork, shortage
from workflow.tradeoff.variants import VARIANTS

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PROOF = ("memory", "proof", "kernels", "bandwidth")  # what one process of the cell records beside its samples
MINIMUM_REPLICATES = 2  # below it there is no spread to speak of, whatever the budget


@dataclass(frozen=True)
class Runner:
    """How a process of a role (``cell`` or ``baseline``) is started: variant, artifact, and the protocol's flags."""

    variant: str
    artifact: Path
    flags: tuple[str, ...]

    def arguments(self, output: Path, proof: bool, study_runs: int) -> list[str]:
        return [
            *("--variant", self.variant),
            *("--artifact", str(self.artifact)),
            *self.flags,
            *("--study-runs", str(study_runs)),
            *("--output", str(output)),
            *(["--proof"] if proof else []),
        ]

    def run(self, proof: bool = False, study_runs: int = 0) -> dict:
        """Run one process and return what it wrote; CellFailure when it failed or was killed."""
        from workflow.tradeoff.measure import sample  # not before the thread counts are set

        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "sample.json"
            before = shortage.on_host()
            code, text = fork.run(sample.main, self.arguments(output, proof, study_runs), quiet=True)
            if code:
                raise fork.failure(code, text, VARIANTS[self.variant], self.artifact, before)
            result = files.read_json(output)
            if result["status"] != "ok":
                raise CellFailure(result["status"], result["reason"])
            return result

    def warm(self) -> None:
        """Import here what the next processes would each import."""
        from workflow.tradeoff import engines

        engines.warm(VARIANTS[self.variant], self.artifact)


def spread(replicates: list[dict]) -> float:
    """Range of the replicates' median inter-token times over their median: a raw measure of noise, not a statistic."""
    medians = [
        statistics.median(time for sample in replicate["samples"] for time in sample["itl_s"])
        for replicate in replicates
        if replicate["role"] == "cell"
    ]
    return (max(medians) - min(medians)) / statistics.median(medians)


def interleave(cell: Runner, baseline: Runner | None, *, replicates, rounds, noisy_share, budget_s, study_runs) -> dict:
    """Raw replicates of a cell and its baseline (None when the cell is the baseline itself)."""
    taken: list[dict] = []
    proof: dict = {}
    runners = [("cell", cell)] + ([("baseline", baseline)] if baseline else [])
    start = time.monotonic()
    for number in range(replicates * rounds):
        if number >= MINIMUM_REPLICATES and time.monotonic() - start > budget_s:
            break
        if number and number % replicates == 0 and spread(taken) <= noisy_share:
            break
        for order, (role, runner) in enumerate(runners if number % 2 == 0 else runners[::-1]):
            first = role == "cell" and not proof
            try:
                result = runner.run(proof=first, study_runs=study_runs)
            except CellFailure as failed:
                if role == "cell":
                    raise
                raise CellFailure(failed.status, f"its baseline, {runner.variant}: {failed.reason}") from failed
            if first:
                proof = {key: result.pop(key) for key in PROOF}
            if number == 0:
                # it runs, and the cell's memory is recorded: the next processes may share what is imported here
                runner.warm()
            taken.append({"role": role, "replicate": number, "order": order, **result})
            print(f"replicate {number + 1}: {runner.variant} ({role})", file=sys.stderr, flush=True)
    count = sum(entry["role"] == "cell" for entry in taken)
    return {"replicates": taken, "rounds": -(-count // replicates), "noisy": spread(taken) > noisy_share, **proof}


def protocols(taken: dict, prompt_tokens: int, new_tokens: int, warmup: int) -> dict:
    """The raw samples sorted under the two protocols."""
    standard = [{key: value for key, value in entry.items() if key != "study"} for entry in taken["replicates"]]
    study = [
        {"role": entry["role"], "replicate": entry["replicate"], "samples": entry["study"]["samples"]}
        for entry in taken["replicates"]
        if entry["study"]["samples"]
    ]
    return {
        "standard": {
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "warmup": warmup,
            "replicates": standard,
            "rounds": taken["rounds"],
            "noisy": taken["noisy"],
        },
        "study": {
            "prompt": "Hello, how are you?",
            "prompt_tokens": taken["replicates"][0]["study"]["prompt_tokens"],
            "new_tokens": 10,
            "replicates": study,
        },
    }


def measure(args) -> dict:
    flags = []
    for name in ("model_folder", "warmup", "samples", "prompt_tokens", "new_tokens", "device", "threads"):
        flags += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    cell = Runner(args.variant, args.artifact, tuple(flags))
    baseline = None
    if args.variant != args.baseline:
        baseline = Runner(args.baseline, args.baseline_artifact, tuple(flags))
    taken = interleave(
        cell,
        baseline,
        replicates=args.replicates,
        rounds=args.rounds,
        noisy_share=args.noisy_share,
        budget_s=args.budget_s,
        study_runs=args.study_runs,
    )
    return {
        "protocols": protocols(taken, args.prompt_tokens, args.new_tokens, args.warmup),
        **{key: taken[key] for key in PROOF},
    }


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    for name in ("study", "model"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("variant", "baseline"):
        parser.add_argument(f"--{name}", choices=VARIANTS, required=True)
    for name in ("artifact", "baseline-artifact", "model-folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("warmup", "replicates", "samples", "prompt-tokens", "new-tokens", "study-runs", "rounds", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--budget-s", type=float, required=True, help="seconds after which no replicate is begun")
    parser.add_argument("--noisy-share", type=float, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    # Snakemake exports its own thread counts, and not every library asks torch for them
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(args.threads)))
    result = {
        "schema": 1,
        **{key: getattr(args, key) for key in ("study", "model", "variant", "baseline", "device", "threads")},
        "status": "ok",
        "reason": "",
    }
    try:
        result |= measure(args)
    except CellFailure as failed:
        print(f"{args.model} × {args.variant}: {failed}", file=sys.stderr)
        result |= {"status": failed.status, "reason": failed.reason}
    result["environment"] = environment.collect(args.device, args.threads)
    files.write_json(args.output, result)


if __name__ == "__main__":
    errors.run(main)
