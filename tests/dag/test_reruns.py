"""Exact reruns: after a full run, what an edit makes Snakemake do again, and what it leaves alone."""

import os

import pytest

STAGES = {"fetch_model", "fetch_corpus", "export", "quantize", "measure", "evaluate"}


def variants(outputs: set[str]) -> set[str]:
    """``model/variant`` of the cells that outputs belong to."""
    return {"/".join(path.split("/")[-2:]).rsplit(".", 1)[0] for path in outputs}


def append(line: str):
    return lambda text: text + line


def test_nothing_to_do_after_a_full_run(study):
    assert study.planned() == {}


def test_editing_a_figure_reruns_figures_and_report_only(study):
    study.edit("workflow/tradeoff/report/figures.py", append("\n# another colour\n"))
    planned = set(study.planned())
    assert {"figures", "report"} <= planned
    assert planned <= {"figures", "report", "all"}


def test_editing_what_measure_imports_reruns_measure_and_what_follows(study):
    study.edit("workflow/tradeoff/measure/memory.py", append("\n# another thought\n"))
    planned = study.planned()
    assert len(planned["measure"]) == 7
    assert {"summarize", "report"} <= set(planned)
    assert not set(planned) & (STAGES - {"measure"})


def test_editing_an_engine_reruns_the_cells_that_run_on_it(study):
    study.edit("workflow/tradeoff/engines/onnx.py", append("\n# another thought\n"))
    planned = study.planned()
    assert variants(planned["measure"]) == {
        "llama/onnx-fp32",
        "llama/onnx-int8-kv",
        "gpt2/onnx-int8",
        "gpt2/int4-b16",
    }


def test_a_newer_library_makes_again_what_stands_on_it(study, tmp_path):
    """What it could not export or run, or ran wrongly, is tried again; texts and models stay."""
    planted = tmp_path / "onnxruntime-99.0.dist-info"
    planted.mkdir()
    (planted / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 99.0\n")
    planned = study.planned(PYTHONPATH=str(tmp_path))
    assert {"export", "quantize", "measure", "evaluate"} <= set(planned)
    assert not set(planned) & {"fetch_model", "fetch_corpus"}


def test_adding_a_variant_runs_its_cells_and_the_tables(study):
    study.configure(lambda config: config["models"]["llama"]["variants"].append("bnb-nf4"))
    planned = study.planned()
    assert variants(planned["measure"]) == variants(planned["evaluate"]) == {"llama/bnb-nf4"}
    assert not set(planned) & {"fetch_model", "fetch_corpus", "export", "quantize"}
    assert {"summarize", "report"} <= set(planned)


def test_a_new_preset_or_engine_reruns_nothing(study):
    study.edit("workflow/presets.yaml", append("\nbnb-own: {engine: hf, recipe: {quantizer: bitsandbytes, bits: 4}}\n"))
    study.edit("workflow/schemas/variants.yaml", append("\n# another engine\n"))
    assert study.planned() == {}


def test_a_changed_recipe_reruns_its_artifact_and_its_cells(study):
    study.configure(lambda config: config["define"]["int4-b16"]["recipe"].update(block=32))
    planned = study.planned()
    assert variants(planned["measure"]) == variants(planned["evaluate"]) == {"gpt2/int4-b16"}
    assert len(planned["quantize"]) == 1 and not set(planned) & {"fetch_model", "fetch_corpus", "export"}


def test_changing_one_models_config_touches_its_cells_alone(study):
    study.configure(lambda config: config["models"]["gpt2"].update(dtype="float32"))
    planned = study.planned()
    assert planned["fetch_model"] == {"results/tiny/models/gpt2/manifest.json"}
    for rule in ("export", "quantize", "measure", "evaluate"):
        assert planned[rule] and all("/gpt2/" in path for path in planned[rule]), rule


def test_a_statistic_never_reruns_a_measurement_nor_does_the_limit_of_what_hangs(study):
    study.configure(lambda config: config.update(hung_after_s=60))
    study.edit("workflow/tradeoff/stats.py", append("\n# another interval\n"))
    planned = set(study.planned())
    assert "summarize" in planned
    assert not planned & STAGES


@pytest.mark.parametrize(
    "path", ["workflow/tradeoff/report/figures.py", "workflow/tradeoff/measure/__main__.py", "config/tiny.yaml"]
)
def test_touching_or_reverting_reruns_nothing(study, path):
    before = (study.folder / path).read_text()
    study.edit(path, append("\n# gone again\n"))
    study.edit(path, lambda text: before)
    os.utime(study.folder / path)
    assert study.planned() == {}


def test_a_table_that_was_deleted_is_made_again_and_measures_nothing(study):
    (study.results / "tables" / "summary.csv").unlink()
    planned = set(study.planned())
    assert {"summarize", "decide", "report"} <= planned and not planned & STAGES


def test_a_cells_file_that_was_deleted_is_taken_again(study):
    """What the reason of a disturbed or hung cell asks for."""
    (study.results / "speed/llama/onnx-int8-kv.json").unlink()
    planned = study.planned()
    assert variants(planned["measure"]) == {"llama/onnx-int8-kv"} and {"summarize", "report"} <= set(planned)
    assert not set(planned) & (STAGES - {"measure"})


def test_touching_a_result_reruns_nothing(study):
    for path in ("models/llama/manifest.json", "speed/llama/torch-fp32.json", "tables/summary.csv"):
        os.utime(study.results / path)
    assert study.planned() == {}
