"""The tiny study from end to end: every table and figure is there, and the numbers are those of the raw data."""

import csv
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml

import numpy as np
import pytest

# tables of the study, and columns that each must have filled somewhere
STUDY_TABLES = {
    "benchmark": "tokens_per_s weight_gb speedup memory_reduction_pct quality_score s_sd",
    "onnx": "tokens_per_s speedup over_onnx_fp32",
    "perplexity": "perplexity avg_loss tokens_evaluated",
    "degradation": "delta_perplexity degradation_pct",
    "accuracy_drop": "perplexity accuracy_drop_pct",
    "speed_by_precision": "FP32 INT8 int4-b16 best_speedup",
    "memory_by_precision": "FP32 INT8 int4-b16 best_memory_reduction_pct",
    "efficiency_matrix": "speed_efficiency memory_efficiency accuracy_pct overall_efficiency",
}
FIGURES = ["tradeoff", "speed", "latency", "growth", "memory", "perplexity", "delta_nll", "divergence", "roofline"]
FIGURES += ["launch", "claims", "loads"]
CELLS = {
    "llama/torch-fp32",
    "llama/bnb-int8",
    "llama/onnx-fp32",
    "llama/onnx-int8-kv",
    "gpt2/torch-fp32",
    "gpt2/onnx-int8",
    "gpt2/int4-b16",
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
    rows = table(finished, name)
    for column in STUDY_TABLES[name].split():
        assert any(row[column] for row in rows), column
    assert {row["model"] for row in rows} == {"llama", "gpt2"}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture_with_words(finished, name):
    picture = xml.parse(finished.results / "figures" / f"{name}.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    # without eager and compiled variants beside each other, the figure of launches is one line that says so
    assert len(list(picture.iter())) > (10 if name == "launch" else 50)


def test_every_table_has_its_page_and_no_hole_is_a_number(finished):
    tables = {path.stem: path for path in (finished.results / "tables").glob("*.csv")}
    pages = {path.stem for path in (finished.results / "tables" / "html").glob("*.html")}
    assert pages == set(tables) and set(STUDY_TABLES) <= pages
    for name, path in tables.items():
        found = {cell.lower() for row in csv.reader(path.open()) for cell in row}
        assert not found & {"nan", "none", "inf", "-inf"}, name


def test_the_perplexity_is_that_of_the_stored_losses(finished):
    for row in table(finished, "summary"):
        arrays = np.load(finished.results / "quality" / row["model"] / f"{row['variant']}.npz")
        losses = arrays["windows-64/nll"].astype(np.float64)
        assert len(losses) >= 1024
        assert float(row["perplexity"]) == pytest.approx(math.exp(losses.mean()), rel=1e-6)


SPEED = {  # of one sample, by protocol
    "standard": lambda sample: len(sample["itl_s"]) / sum(sample["itl_s"]),
    "study": lambda sample: sample["new_tokens"] / sample["total_s"],
}


def rates(study, protocol, model, variant, role):
    """Speed of each turn, tokens/s, from the raw times, by pair of processes and turn."""
    raw = json.loads((study.results / "speed" / model / f"{variant}.json").read_text())
    assert raw["model"] == model and raw["baseline"] == "torch-fp32"
    taken = [entry for entry in raw["protocols"][protocol]["replicates"] if entry["role"] == role]
    turns = [(entry["replicate"], sample) for entry in taken for sample in entry["samples"]]
    return {(replicate, sample["turn"]): SPEED[protocol](sample) for replicate, sample in turns}


@pytest.mark.parametrize(("column", "protocol"), [("speedup", "standard"), ("study_speedup", "study")])
def test_a_speedup_is_against_the_same_models_baseline_of_the_same_minute(finished, column, protocol):
    for row in table(finished, "summary"):
        assert row["baseline"] == "torch-fp32"
        if row["variant"] == "torch-fp32":
            assert float(row[column]) == 1.0
            continue
        cell, baseline = (
            rates(finished, protocol, row["model"], row["variant"], role) for role in ("cell", "baseline")
        )
        pairs = [own / baseline[turn] for turn, own in cell.items()]
        assert len(cell) == len(baseline)
        assert min(pairs) * 0.999 <= float(row[column]) <= max(pairs) * 1.001, row["variant"]


def test_what_is_said_to_be_quantized_is(finished):
    # of the Llama's linear weights, bitsandbytes leaves the head: 320 × 64 beside two layers of 36,864
    expected = {"bnb-int8": 2 * 36864 / (2 * 36864 + 320 * 64)}
    for row in table(finished, "summary"):
        assert float(row["quantized_fraction"]) == pytest.approx(expected.get(row["variant"], 1.0)), row["variant"]


def test_the_report_has_no_holes_and_its_links_lead_somewhere(finished):
    text = (finished.results / "report.md").read_text()
    assert not re.search(r"\b(nan|NaN|None|null|inf)\b", text)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (finished.results / link).exists(), link


def test_every_log_opens_with_where_it_ran(finished):
    # the progress is Snakemake's own, not a stage's
    logs = [log for log in (finished.results / "logs").rglob("*.log") if log.name != "progress.log"]
    assert len(logs) > 30
    for log in logs:
        assert log.read_text().startswith("image: host"), log


def test_jobs_keep_compiled_files_whatever_the_environment_says(finished):
    package = finished.folder / "workflow" / "tradeoff"
    assert all(any((package / stage / "__pycache__").glob("*.pyc")) for stage in ("measure", "evaluate", "prepare"))


def test_a_batch_is_measured_and_what_has_none_says_so(finished):
    rows = {(row["model"], row["variant"], row["load"]): row for row in table(finished, "loads")}
    assert {load for *_, load in rows} == {"standard", "pair"} and len(rows) == 2 * len(CELLS)
    for (model, variant, load), row in rows.items():
        if load == "pair" and variant in ("onnx-fp32", "onnx-int8"):
            assert row["status"] == "unsupported" and "nobody serves a batch so" in row["reason"]
            continue
        assert row["status"] == "ok" and float(row["speedup"]) > 0, (model, variant, load, row["reason"])
        assert float(row["tokens_per_s"]) == pytest.approx((1 + (load == "pair")) * float(row["tokens_per_s_each"]))
    raw = json.loads((finished.results / "speed/llama/bnb-int8.json").read_text())["loads"][0]
    assert {run["role"] for run in raw["replicates"]} == {"cell", "baseline"}
    assert "## Under load" in (finished.results / "report.md").read_text()


def test_cells_and_baselines_alternate(finished):
    cell = json.loads((finished.results / "speed/llama/bnb-int8.json").read_text())
    roles = [entry["role"] for entry in cell["protocols"]["standard"]["replicates"]]
    assert roles[:4] == ["cell", "baseline", "baseline", "cell"]


def test_every_answer_comes_with_what_serves_it(finished):
    deployed = json.loads((finished.results / "deploy" / "deploy.json").read_text())
    winners = {(row["model"], row["winner"]) for row in table(finished, "scenarios") if row["winner"]}
    assert {(entry["model"], entry["variant"]) for entry in deployed} == winners
    report = (finished.results / "report.md").read_text()
    for model in ("llama", "gpt2"):
        first = next(entry for entry in deployed if entry["model"] == model)
        assert first["command"] in (finished.results / "deploy" / "command.txt").read_text()
        assert first["command"] in report.partition("## The table behind it")[0]
        assert first["digest"] in (finished.results / first["readme"]).read_text()


def test_an_answer_is_served_with_the_text_that_was_measured(finished):
    entry = json.loads((finished.results / "deploy" / "deploy.json").read_text())[0]
    measured = json.loads((finished.results / f"quality/{entry['model']}/{entry['variant']}.json").read_text())
    prompt = measured["generated"][0]
    words = [*entry["command"].split()[1:], "--tokens", str(len(prompt["token_ids"])), "--prompt", prompt["prompt"]]
    done = subprocess.run([sys.executable, *words], cwd=finished.folder, capture_output=True, text=True, check=True)
    assert done.stdout == prompt["text"] + "\n"


def lengthened(config):
    config["evaluate"]["conventions"] = ["windows-512"]
    config["corpus"].update(path="inputs/short.raw", sha256=hashlib.sha256(SHORT.encode()).hexdigest())


SHORT = "\n = The bridge = \n\n The bridge over the river was built by the people of two villages . \n"
BAD = {
    "wrong checksum": (
        lambda config: config["corpus"].update(sha256="0" * 64),
        "corpus/bridge.json",
        ["inputs/corpus.raw", "sha256", "0" * 64],
    ),
    "missing model": (
        lambda config: config["models"]["gpt2"].update(path="inputs/none"),
        "models/gpt2/manifest.json",
        ["inputs/none"],
    ),
    "corpus shorter than a window": (
        lengthened,
        "quality/gpt2/torch-fp32.json",
        ["windows-512", "corpus", "shorter"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_and_leaves_nothing(study, case):
    change, target, words = BAD[case]
    study.configure(change)
    (study.folder / "inputs" / "short.raw").write_text(SHORT)
    target = study.results / target
    shutil.rmtree(target.parent)
    done = study.snakemake("--", str(target.relative_to(study.folder)), check=False)
    assert done.returncode
    lines = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1 and all(word in lines.copy().pop() for word in words), done.stdout[-3000:]
    # said when it happens, and again below what Snakemake says of it
    assert "Error in rule" in done.stdout.partition("error: ")[2].rpartition("error: ")[0]
    assert "Traceback" not in done.stdout
    assert not list(study.results.rglob(".*partial*"))
    assert not target.parent.exists() or not [path for path in target.parent.rglob("*") if path.is_file()]
