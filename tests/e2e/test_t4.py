"""config/t4.yaml itself through every stage on the CPU, its models replaced by tiny ones of the same architectures."""

import csv
import json

import pytest

from tests import planned, studies, t4
from workflow.tradeoff.variants import VARIANTS

CELLS = [(model, variant) for model, variants in t4.chosen().items() for variant in variants]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> studies.Study:
    study = t4.make(tmp_path_factory.mktemp("t4") / "checkout", finished.folder / "inputs")
    plan = planned.jobs(study.snakemake("--dry-run", "--nocolor").stdout)
    planned.run(study.folder, plan)
    for job in plan:
        for name in job.outputs:
            assert (study.folder / name).is_file(), name
    return study


def table(study, name):
    with (study.results / "tables" / f"{name}.csv").open(newline="") as file:
        return {(row["model"], row["variant"]): row for row in csv.DictReader(file)}


def test_every_variant_that_runs_on_a_cpu_is_tried_on_both_architectures():
    able = {name for name in t4.config()["variants"] if "cpu" in VARIANTS[name].devices} - set(t4.TOO_NARROW)
    for kinds in ({"gpt2"}, {"llama", "llama-untied"}):
        assert able <= {variant for model, variant in CELLS if t4.STANDINS[model] in kinds}
    for kind in t4.STANDINS.values():
        assert {variant for model, variant in CELLS if t4.STANDINS[model] == kind} - {t4.config()["baseline"]}


def test_the_standins_have_the_architectures_of_the_study(run):
    def facts(model):
        return json.loads((run.results / "models" / model / "manifest.json").read_text())

    found = {model: (facts(model)["architecture"], facts(model)["tied"]) for model in t4.STANDINS}
    assert found == {
        "distilgpt2": ("gpt2", True),
        "dialogpt-small": ("gpt2", True),
        "tinyllama-1.1b": ("llama", False),
        "llama-3.2-1b": ("llama", True),
    }


def test_a_cell_has_figures_or_needs_a_gpu_and_says_so(run):
    rows = table(run, "summary")
    assert set(rows) == set(CELLS)
    for (model, variant), row in rows.items():
        assert row["baseline"] == "torch-fp16"
        if "cpu" in VARIANTS[variant].devices:
            assert row["status"] == "ok", (model, variant, row["reason"])
            assert float(row["decode_tokens_per_s"]) > 0 and float(row["perplexity"]) > 1
        else:
            assert row["status"] == "unsupported" and f"{variant} runs on cuda, not on cpu" in row["reason"]
            assert not row["decode_tokens_per_s"] and not row["perplexity"]


def test_the_report_has_every_model_and_every_reason(run):
    text = (run.results / "report.md").read_text()
    for model, variant in CELLS:
        assert model in text and variant in text
    for variant in t4.WITHOUT_CPU:
        assert f"{variant} runs on cuda, not on cpu" in text
