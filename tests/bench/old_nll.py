"""Two runs of the default study compared token by token, for an upgrade of the libraries: docs/transformers5.md.

    python -m tests.bench.old_nll OLD/results/demo NEW/results/demo --model smollm2-135m \\
        --crossed ways-*.json --output docs/transformers5.md

OLD: quality of commit cbb1a0f in the environment of its own lock (transformers 4.57.6, ONNX Runtime 1.23.2). crossed:
what ``tests.bench.onnx_nll`` wrote of an INT8 file under both releases of ONNX Runtime.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from workflow.tradeoff import files

SAME = 1e-4  # nats a token, of two means over the same tokens
VARIANTS = ("torch-fp32", "torch-bf16", "bnb-int8", "bnb-nf4", "onnx-fp32", "onnx-fp32-kv", "onnx-int8", "onnx-int8-kv")
LIBRARIES = ("torch", "transformers", "onnxruntime", "bitsandbytes", "numpy")
HEAD = """# The default study before and after transformers 5

Made by `python -m tests.bench.old_nll` of the per-token NLL of commit cbb1a0f, in the environment of its own lock, and
of today's code, on one machine (AMD Zen 3, no VNNI), over the same {tokens:,} tokens of the default study.
"""
CROSSED = """
## Why onnx-int8 moves

`tests/bench/onnx_nll.py`, which imports nothing of the product, scores an INT8 file under both releases of ONNX
Runtime: eight windows in a pass, which share one scale of activations, or one; with the optimizations of the graph, or
none. Its integer products are held against exact sums too: with weights of 8 bits and inputs of any size, CPUs without
VNNI add up two products in 16 bits, which some sums do not fit.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def compared(old: Path, new: Path, variant: str) -> dict:
    """Means and differences of the first convention of a cell; AssertionError when other tokens were scored."""
    quality = [files.read_json(folder / f"{variant}.json") for folder in (old, new)]
    convention = next(name for name in quality[0]["conventions"] if name in quality[1]["conventions"])
    arrays = []
    for folder in (old, new):
        with np.load(folder / f"{variant}.npz") as stored:
            arrays.append({key: stored[f"{convention}/{key}"] for key in ("token", "nll")})
    assert np.array_equal(arrays[0]["token"], arrays[1]["token"]), f"{variant}: other tokens"
    before, after = (found["nll"].astype(np.float64) for found in arrays)
    return {"before": before, "after": after, "libraries": [found["environment"]["libraries"] for found in quality]}


def means(found: Mapping[str, dict]) -> str:
    rows = []
    for name, cell in found.items():
        change = cell["after"] - cell["before"]
        error = change.std(ddof=1) / np.sqrt(len(change))
        within = "yes" if abs(change.mean()) <= SAME else "no"
        values = (f"{cell['before'].mean():.6f}", f"{cell['after'].mean():.6f}", f"{change.mean():+.1e} ± {error:.0e}")
        rows.append((name, *values, f"{np.abs(change).max():.1e}", within))
    head = ("variant", "mean NLL before", "after", "change ± standard error", "largest of a token", f"within {SAME:g}")
    return table(head, rows)


def crossed(runs: Iterable[Mapping]) -> str:
    """Mean NLL of each file, release and way, and the sums that were not exact."""
    runs = list(runs)
    ways = list(runs[0]["nll"])
    rows = []
    for run in runs:
        wrong = ", ".join(f"{count} ({shape})" for shape, count in run["wrong_sums"].items() if count) or "none"
        rows.append((run["file"], run["onnxruntime"], *(f"{np.mean(run['nll'][way]):.4f}" for way in ways), wrong))
    return CROSSED + "\n" + table(("INT8 file", "ONNX Runtime", *ways, "sums that are not exact"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--crossed", type=Path, nargs="*", default=[], help="what tests.bench.onnx_nll wrote")
    parser.add_argument("--why", type=Path, help="the words below the tables")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    folders = [folder / "quality" / args.model for folder in (args.old, args.new)]
    known = [name for name in VARIANTS if all((folder / f"{name}.npz").is_file() for folder in folders)]
    found = {name: compared(*folders, name) for name in known}
    first = next(iter(found.values()))
    versions = [[side, *(said.get(name, "-") for name in LIBRARIES)]
                for side, said in zip(("before", "after"), first["libraries"], strict=True)]  # fmt: skip
    parts = [HEAD.format(tokens=len(first["before"])), table(("", *LIBRARIES), versions), means(found)]
    if args.crossed:
        parts.append(crossed(map(files.read_json, args.crossed)))
    if args.why:
        parts.append(args.why.read_text())
    with files.atomic_file(args.output) as temporary:
        temporary.write_text("\n".join(part.strip("\n") + "\n" for part in parts))


if __name__ == "__main__":
    main()
