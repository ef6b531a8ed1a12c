"""What the engines for a card were to reach, and what their committed raw files say of it.

    python -m tests.bench.goals docs

A goal is reached where the favourable figure's whole interval is on its side, and not told where the interval holds it.
What no committed file can say is named with the reason.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.speeds import baseline_rates
from workflow.tradeoff import stats
from workflow.tradeoff.stats import Interval
from workflow.tradeoff.summarize import rows_speed

HEAD = ["goal", "found", "", "files"]
NO_CARD = "the card's time was spent before it"
NOT_RUN = {
    "Llama-3.2-1B: `torch-fp16-graph` ≥ 60% MBU, `int8-graph` ≥ 1.5 ×, `int4-graph` ≥ 1.8 × of it": (
        "by hand, an earlier version (below): 63%, 1.25 ×, 1.06 ×; by the workflow not run"
    ),
    "distilgpt2: a graph ≥ 2 × vLLM": "no vLLM beside it",
    "distilgpt2: `onnx-fp16-kv` ≥ 5 × `generate`": "ONNX Runtime's CUDA cells were not run",
    "evaluation ≥ 2 × lm-eval's on the same card": "lm-eval was not run on a card; on a CPU: docs/evaluation-speed.md",
}


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def speedup(path: Path) -> Interval:
    """A cell's paired ratio to its baseline."""
    row = rows_speed.speed_columns(load(path))
    return Interval(*(row[f"speedup{end}"] for end in ("", "_low", "_high")), row["replicates"], "paired")


def over(above: Path, below: Path) -> Interval:
    """One cell's speed over another's, through the baseline that both are paired with."""
    return stats.independent_ratio(speedup(above), speedup(below))


def mbu_of_baseline(path: Path) -> float:
    """Share of the measured bandwidth at which a cell's baseline reads its linear weights, of two bytes each."""
    speed = load(path)
    rate = np.median(baseline_rates(speed))
    return 2 * speed["proof"]["linear_weights"] * rate / speed["bandwidth"]["bytes_per_s"]


def verdict(found: Interval, wanted: float) -> str:
    """Whether a goal of at least ``wanted`` is reached; a figure without an interval is taken as it is."""
    low, high = (found.value if math.isnan(end) else end for end in (found.low, found.high))
    return "reached" if low >= wanted else "not reached" if high < wanted else "not told"


def goals(docs: Path) -> Iterator[tuple[str, str, str, str]]:
    """Goal, figure, verdict, and the files that it is of."""
    large, card, beside = docs / "large" / "raw", docs / "h100" / "raw" / "speed", docs / "vllm" / "tables"
    share = mbu_of_baseline(large / "int8-graph.json")
    bare = Interval(share, math.nan, math.nan, 1, "")
    yield "8B: `torch-fp16-graph` ≥ 80% MBU", f"{share:.0%}", verdict(bare, 0.8), "large/raw/int8-graph.json"
    ratios = [
        ("8B: `int8-graph` ≥ 1.7 × of it", 1.7, speedup(large / "int8-graph.json"), "large/raw/int8-graph.json"),
        ("8B: `int4-graph` ≥ 2.6 × of it", 2.6, speedup(large / "int4-graph.json"), "large/raw/int4-graph.json"),
    ]
    for graph in ("torch-fp16-graph", "int8-graph"):
        ratio = over(card / f"{graph}.json", card / "vllm-fp16.json")
        files = f"h100/raw/speed: {graph}, vllm-fp16"
        ratios.append((f"SmolLM2-135M: `{graph}` ≥ 2 × `vllm-fp16`", 2, ratio, files))
    ratio = over(card / "int4-graph.json", card / "int8-graph.json")
    files = "h100/raw/speed: int4-graph, int8-graph"
    ratios.append(("SmolLM2-135M: `int4-graph` no slower than `int8-graph`", 1, ratio, files))
    for words, wanted, ratio, files in ratios:
        yield words, f"{ratio.value:.2f} × [{ratio.low:.2f}, {ratio.high:.2f}]", verdict(ratio, wanted), files
    with (beside / "conventions.csv").open(newline="") as table:
        rates = {row["variant"]: float(row["scored_tokens_per_s"]) for row in csv.DictReader(table)}
    for variant in ("torch-fp16", "torch-fp16-graph"):
        bare = Interval(rates[variant], math.nan, math.nan, 1, "")
        words = f"evaluation of SmolLM2-135M ≥ 100,000 tokens/s: `{variant}`, on an H200"
        yield words, f"{bare.value:,.0f}", verdict(bare, 100_000), "vllm/tables/conventions.csv"
    yield "the same, the other torch and ONNX cells", "", f"not run alone: {NO_CARD}", ""
    for words, why in NOT_RUN.items():
        yield words, "", why, ""


def table(docs: Path) -> str:
    """The goals as markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *goals(docs)]
    return "\n".join(f"| {' | '.join(words)} |" for words in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path)
    print(table(parser.parse_args().docs))


if __name__ == "__main__":
    main()
