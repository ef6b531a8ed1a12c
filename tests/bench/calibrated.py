"""What each recipe of a study costs in accuracy, against the baseline and against another recipe: one table.

    python -m tests.bench.calibrated results/calibrated --model smollm2-135m --against nearest nearest learned mixed

Read off what the study's evaluations wrote: the same tokens in every row, so the interval of a change is that of the
paired differences, resampled by window. Bits and megabytes are those of the packed files.
"""

import argparse
from pathlib import Path

import numpy as np

from workflow.tradeoff import files, stats


def nll(path: Path, convention: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path.with_suffix(".npz")) as arrays:
        return arrays[f"{convention}/nll"].astype(np.float64), arrays[f"{convention}/block"]


def change(cell: np.ndarray, other: np.ndarray, block: np.ndarray) -> str:
    """Paired change of perplexity in percent with its 95% interval."""
    found = stats.degradation_percent(stats.paired_delta(cell, other, block))
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def artifact(results: Path, model: str, digest: str) -> Path:
    """The folder whose files have a digest: that of what ran."""
    folders = (results / "artifacts" / model).glob("*/manifest.json")
    return next(path.parent for path in folders if files.read_json(path)["digest"] == digest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--baseline", default="torch-fp32")
    parser.add_argument("--against", required=True, help="the recipe that the others are compared with too")
    parser.add_argument("--convention", default="windows-256")
    parser.add_argument("variants", nargs="+")
    args = parser.parse_args()
    folder = args.results / "quality" / args.model
    base, block = nll(folder / args.baseline, args.convention)
    other, _ = nll(folder / args.against, args.convention)
    print(f"{args.convention}, {len(base):,} tokens in {len(np.unique(block))} windows\n")
    print(
        f"| recipe | bits a weight | MB | perplexity | change % [95%] | against `{args.against}`, % [95%] | KL, nats |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print(f"| `{args.baseline}` | 32 | | {np.exp(base.mean()):.2f} | | | |")
    for name in args.variants:
        said = files.read_json(folder / f"{name}.json")
        own, _ = nll(folder / name, args.convention)
        place = artifact(args.results, args.model, said["digests"]["artifact"])
        made = files.read_json(place / "manifest.json")
        size = sum(path.stat().st_size for path in place.glob("*.safetensors")) / 1e6
        kl = next(iter(said["divergence"].values()))["kl_mean"]
        paired = "" if name == args.against else change(own, other, block)
        print(
            f"| `{name}` | {made['bits_per_weight']:.3f} | {size:.1f} | {np.exp(own.mean()):.2f} "
            f"| {change(own, base, block)} | {paired} | {kl:.3f} |"
        )


if __name__ == "__main__":
    main()
