"""What each recipe of a study costs in accuracy, against the baseline and against another recipe: one table.

    python -m tests.bench.calibrated results/calibrated --model smollm2-135m --against nearest nearest learned mixed

Read off what the study's evaluations wrote and the manifests of what they ran: the same tokens in every row, so the
interval of a change is that of the paired differences, resampled by window. Bits are those of the packed matrices.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workflow.tradeoff import files, stats

CONVENTION = "windows-256"
HEAD = (
    "| recipe | bits a weight | packed in | MB | perplexity | change % [95%] | against `{}`, % [95%] | KL, nats |\n"
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
)


def nll(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Losses of a variant's tokens (n,) and the windows that they are in."""
    with np.load(path) as arrays:
        return arrays[f"{CONVENTION}/nll"].astype(np.float64), arrays[f"{CONVENTION}/block"]


def change(cell: np.ndarray, other: np.ndarray, block: np.ndarray) -> str:
    """Paired change of perplexity in percent with its 95% interval."""
    found = stats.degradation_percent(stats.paired_delta(cell, other, block))
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def packed_in(weights_by_bits: dict) -> str:
    """Shares of the matrices by their bits, in words."""
    total = sum(weights_by_bits.values())
    shares = [(int(bits), 100 * size / total) for bits, size in weights_by_bits.items()]
    return ", ".join(f"{bits} ({share:.0f}%)" for bits, share in sorted(shares))


def table(results: Path, model: str, baseline: str, against: str, variants: Sequence[str]) -> str:
    folder = results / "quality" / model
    made = [files.read_json(path) for path in (results / "artifacts" / model).glob("packed-*/manifest.json")]
    by_digest = {manifest["digest"]: manifest for manifest in made}
    base, block = nll(folder / f"{baseline}.npz")
    other, _ = nll(folder / f"{against}.npz")
    lines = [HEAD.format(against), f"| `{baseline}` | 32 | | | {np.exp(base.mean()):.2f} | | | |"]
    for name in variants:
        said = files.read_json(folder / f"{name}.json")
        own, _ = nll(folder / f"{name}.npz")
        ran = by_digest[said["digests"]["artifact"]]
        size = sum(entry["bytes"] for file, entry in ran["files"].items() if file.endswith(".safetensors")) / 1e6
        kl = next(iter(said["divergence"].values()))["kl_mean"]
        paired = "" if name == against else change(own, other, block)
        lines.append(
            f"| `{name}` | {ran['bits_per_weight']:.3f} | {packed_in(ran['weights_by_bits'])} | {size:.1f} "
            f"| {np.exp(own.mean()):.2f} | {change(own, base, block)} | {paired} | {kl:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--baseline", default="torch-fp32")
    parser.add_argument("--against", required=True, help="the recipe that the others are compared with too")
    parser.add_argument("variants", nargs="+")
    args = parser.parse_args()
    print(table(args.results, args.model, args.baseline, args.against, args.variants))


if __name__ == "__main__":
    main()
