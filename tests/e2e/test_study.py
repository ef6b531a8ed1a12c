"""The tiny study from end to end: every table and figure is there, and the numbers are those of the raw data."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest

STUDY_TABLES = [
    "benchmark",
    "onnx",
    "perplexity",
    "degradation",
    "accuracy_drop",
    "speed_by_precision",
    "memory_by_precision",
    "efficiency_matrix",
]
CELLS = {
    "llama/torch-fp32",
    "llama/bnb-int8",
    "llama/onnx-fp32",
    "llama/onnx-int8-kv",
    "gpt2/torch-fp32",
    "gpt2/onnx-int8",
    "gpt2/onnx-int4-kv",
}


def table(study, name):
    with open(study.results / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_has_a_status_and_figures(finished):
    rows = {f"{row['model']}/{row['variant']}": row for row in table(finished, "summary")}
    assert set(rows) == CELLS
    for name, row in rows.items():
        assert row["status"] == "ok", (name, row["reason"])
        assert float(row["decode_tokens_per_s"]) > 0 and float(row["perplexity"]) > 1


@pytest.mark.parametrize("name", STUDY_TABLES)
def test_every_table_of_the_study_is_made_again(finished, name):
    assert table(finished, name)


def test_the_perplexity_is_that_of_the_stored_losses(finished):
    for row in table(finished, "summary"):
        arrays = np.load(finished.results / "quality" / row["model"] / f"{row['variant']}.npz")
        losses = arrays["windows-64/nll"].astype(np.float64)
        assert len(losses) >= 1024
        assert float(row["perplexity"]) == pytest.approx(math.exp(losses.mean()), rel=1e-6)


def test_what_is_said_to_be_quantized_is(finished):
    for row in table(finished, "summary"):
        fraction = float(row["quantized_fraction"])
        assert fraction == 1.0 if "onnx" in row["variant"] or "torch" in row["variant"] else 0.5 < fraction < 1.0


def test_the_report_has_no_holes_and_its_links_lead_somewhere(finished):
    text = (finished.results / "report.md").read_text()
    assert not re.search(r"\b(nan|None|inf)\b", text)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (finished.results / link).exists(), link


def test_every_log_opens_with_where_it_ran(finished):
    logs = list((finished.results / "logs").rglob("*.log"))
    assert len(logs) > 30
    for log in logs:
        assert log.read_text().startswith("image: host"), log


def test_cells_and_baselines_alternate(finished):
    cell = json.loads((finished.results / "speed/llama/bnb-int8.json").read_text())
    roles = [entry["role"] for entry in cell["protocols"]["standard"]["replicates"]]
    assert roles[:4] == ["cell", "baseline", "baseline", "cell"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config["corpus"].update(sha256="0" * 64), ["sha256", "corpus"]),
        (lambda config: config["models"]["gpt2"].update(path="inputs/none"), ["inputs/none"]),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(study, change, words):
    study.configure(change)
    shutil.rmtree(study.results)
    targets = ("results/tiny/corpus/bridge.json", "results/tiny/models/gpt2/manifest.json")
    done = study.snakemake("--", *targets, check=False)
    assert done.returncode
    lines = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1 and all(word in lines.copy().pop() for word in words), lines
    assert not list(study.results.rglob(".*partial*"))
