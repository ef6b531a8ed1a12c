"""Figures of a finished report, followed as docs/tracing.md says: report, table, raw file, manifest, bytes."""

import csv
import hashlib
import json
import math

import numpy as np
import pytest

from workflow.tradeoff.words import number


def speed(row, raw, study):
    """Decode tokens a second: between the slowest and the fastest of the samples that were timed."""
    runs = [run for run in raw["protocols"]["standard"]["replicates"] if run["role"] == "cell"]
    rates = [len(sample["itl_s"]) / sum(sample["itl_s"]) for run in runs for sample in run["samples"]]
    return min(rates) <= float(row["decode_tokens_per_s"]) <= max(rates)


def memory(row, raw, study):
    return float(row["memory_mb"]) == pytest.approx(
        (raw["memory"]["weight_bytes"] + raw["memory"]["cache_bytes"]) / 1e6
    )


def perplexity(row, raw, study):
    path = study.results / "quality" / row["model"] / f"{row['variant']}.npz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == raw["digests"]["scores"]
    losses = np.load(path)[f"{row['convention']}/nll"].astype(np.float64)
    return float(row["perplexity"]) == pytest.approx(math.exp(losses.mean()))


@pytest.mark.parametrize(
    ("column", "kind", "cell", "follows"),
    [
        ("decode_tokens_per_s", "speed", ("llama", "onnx-int8-kv"), speed),
        ("perplexity", "quality", ("gpt2", "onnx-int8"), perplexity),
        ("memory_mb", "speed", ("llama", "bnb-int8"), memory),
    ],
)
def test_a_figure_of_the_report_leads_to_the_bytes(finished, column, kind, cell, follows):
    report = (finished.results / "report.md").read_text()
    with open(finished.results / "tables" / "summary.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if (row["model"], row["variant"]) == cell)
    # the report's line has the table's figure
    line = next(line for line in report.splitlines() if line.startswith(f"| {cell[0]} | {cell[1]} |"))
    assert f" {number(float(row[column]))} " in line
    # the table's figure is that of the raw file
    raw = json.loads((finished.results / kind / cell[0] / f"{cell[1]}.json").read_text())
    assert follows(row, raw, finished)
    # the raw file names a manifest, by a digest that the table begins and the report has whole
    digest = raw["digests"]["artifact"]
    assert digest.startswith(row["artifact"]) and len(row["artifact"]) == 12 and digest in report
    manifests = {}
    for path in finished.results.rglob("manifest.json"):
        manifests[json.loads(path.read_text())["digest"]] = path
    # the manifest names the files, and the files have these bytes; and so back to the model
    while digest:
        folder, manifest = manifests[digest].parent, json.loads(manifests[digest].read_text())
        lines = ""
        for name, entry in manifest["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]
            lines += f"{entry['sha256']}  {name}\n"
        assert hashlib.sha256(lines.encode()).hexdigest() == digest
        last, digest = digest, manifest["made_from"]
    assert last == raw["digests"]["model"] and folder == finished.results / "models" / cell[0]
