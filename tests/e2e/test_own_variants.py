"""Variants that a config adds, and a model of transformers 5: from the source to the deployable answer.

Ministral 3 stands for the architectures that transformers 4.57, which optimum's exporter holds on to, does not know.
"""

import csv
import json
from importlib.util import find_spec

import pytest
import yaml

from tests import architectures, planned, studies
from tests.unit.fetch.test_published import quantize
from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.__main__ import main as fetch
from workflow.tradeoff.prepare import gguf_convert

DEFINED = {
    "own-nf4": {"engine": "hf", "checkpoint": {"source": "local", "path": "inputs/nf4"}},
    "own-gguf": {"engine": "llamacpp", "checkpoint": {"source": "local", "path": "inputs/own.gguf"}},
    "rounded": {"engine": "hf", "recipe": {"quantizer": "auto-round", "bits": 4, "group": 32, "iterations": 0}},
    "int4-g32": {"engine": "onnx", "recipe": {"quantizer": "matmul-nbits", "bits": 4, "block": 32, "symmetric": False}},
}
CELLS = {
    ("llama", "torch-fp32"): 32,
    ("llama", "own-nf4"): 4,
    ("llama", "own-gguf"): 8,
    ("llama", "int4-g32"): 4,
    **({("llama", "rounded"): 4} if find_spec("auto_round") else {}),
    ("ministral", "torch-fp32"): 32,
    ("ministral", "bnb-int8"): 8,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("own") / "checkout"
    studies.checkout(folder)
    inputs = folder / "inputs"
    llama = architectures.build(inputs / "llama", "Llama")
    architectures.build(inputs / "ministral", "Ministral 3")
    quantize(llama, inputs / "nf4")
    gguf_convert.write(llama, inputs / "own.gguf", "q8_0", threads=1, config=gguf_convert.read_config(llama))
    config = {
        "study": "tiny",
        "device": "cpu",
        "threads": 1,
        "models": {
            name: {
                "source": "local",
                "path": f"inputs/{name}",
                "variants": [variant for model, variant in CELLS if model == name],
            }
            for name in ("llama", "ministral")
        },
        "define": DEFINED,
        "corpus": {
            "name": "bridge",
            "source": "local",
            "path": "inputs/corpus.raw",
            "sha256": studies.corpus(inputs / "corpus.raw"),
            "format": "wikitext",
        },
        "measure": {"pairs": 2, "prompt_tokens": 8, "new_tokens": 4, "study_runs": 1, "budget_s": 1, "lost_share": 9},
        "evaluate": {"conventions": ["windows-64"], "max_tokens": 512, "divergence_tokens": 128, "generate_tokens": 4},
    }
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return studies.Study(folder)


@pytest.fixture(scope="module")
def plan(study) -> list[planned.Job]:
    """The study's jobs, all done."""
    found = planned.jobs(study.snakemake("--dry-run", "--nocolor").stdout)
    planned.run(study.folder, found)
    return found


def test_every_cell_has_its_figures_and_its_bits(study, plan):
    with (study.results / "tables" / "summary.csv").open(newline="") as file:
        rows = {(row["model"], row["variant"]): row for row in csv.DictReader(file)}
    assert set(rows) == set(CELLS)
    for (model, variant), row in rows.items():
        assert row["status"] == "ok", (model, variant, row["reason"])
        assert row["baseline"] == "torch-fp32" and float(row["decode_tokens_per_s"]) > 0
        assert float(row["perplexity"]) == pytest.approx(float(rows[model, "torch-fp32"]["perplexity"]), rel=0.05)
        proof = files.read_json(study.results / "speed" / model / f"{variant}.json")["proof"]
        assert proof["quantized_fraction"] > 0.5
        if "weights_by_bits" in proof:
            assert proof["weights_by_bits"][str(CELLS[model, variant])] == proof["linear_quantized"]


def unhurried(part):
    """A part of a quality file without how fast it was taken."""
    if not isinstance(part, dict):
        return part
    return {key: unhurried(value) for key, value in part.items() if key != "tokens_per_s"}


@pytest.mark.parametrize(("variant", "name"), [("own-nf4", "nf4/model.safetensors"), ("own-gguf", "own.gguf")])
def test_the_bytes_that_were_published_are_those_that_ran_beside_the_models_own(study, plan, variant, name):
    model = files.read_manifest(study.results / "models" / "llama")
    artifact = files.read_manifest(study.results / "artifacts" / "llama" / f"checkpoint-{variant}")
    assert files.sha256(study.folder / "inputs" / name) in {entry["sha256"] for entry in artifact["files"].values()}
    assert artifact["made_from"] == model["digest"]
    for stage in ("speed", "quality"):
        digests = files.read_json(study.results / stage / "llama" / f"{variant}.json")["digests"]
        assert digests["artifact"] == artifact["digest"] and digests["baseline"] == model["digest"]


def test_snakemake_itself_fetches_a_checkpoint_and_evaluates_its_cell(study, plan):
    """All else here runs the plan's commands without it."""
    quality = study.results / "quality" / "llama" / "own-nf4.json"
    before = files.read_json(quality)
    quality.unlink()
    artifact = "results/tiny/artifacts/llama/checkpoint-own-nf4/manifest.json"
    (study.folder / artifact).unlink()
    # words after the config's name would be read as further configs
    said = study.snakemake("--rerun-triggers", "mtime", "--", "results/tiny/quality/llama/own-nf4.json").stdout
    assert "fetch" in said and "evaluate llama/own-nf4" in said
    again = files.read_json(quality)
    for key in ("status", "conventions", "digests", "generated"):
        assert unhurried(again[key]) == unhurried(before[key])


def test_the_report_names_them_and_the_answer_is_deployed(study, plan):
    report = (study.results / "report.md").read_text()
    assert all(variant in report for _, variant in CELLS)
    deployed = files.read_json(study.results / "deploy" / "deploy.json")
    assert {(entry["model"], entry["variant"]) for entry in deployed} <= set(CELLS)
    assert {entry["model"] for entry in deployed} == {"llama", "ministral"}


def test_a_checkpoint_of_other_tokens_is_refused_in_one_line(study, plan, tmp_path, monkeypatch):
    monkeypatch.chdir(study.folder)
    path = study.folder / "inputs" / "nf4" / "tokenizer.json"
    told = json.loads(path.read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    path.write_text(json.dumps(told))
    job = next(job for job in plan if any("checkpoint-own-nf4" in name for name in job.outputs))
    with pytest.raises(UserError, match=r"^the tokenizer of checkpoint of own-nf4 .* never paired[^\n]*$"):
        fetch([*job.words[3 : job.words.index("--output")], "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
