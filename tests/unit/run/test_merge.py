"""Results of two clusters in one folder: the tables of the whole, or one line that says what does not fit."""

import json
import shutil

import numpy as np
import pytest

from tests import synthetic
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import merge
from workflow.tradeoff.summarize.__main__ import main as summarize

KINDS = ("models", "speed", "quality")


@pytest.fixture
def halves(tmp_path):
    """One model each, of a study of two; and the study in one run."""
    whole = synthetic.write(tmp_path / "whole", models=2)
    for name, left_out in (("a", "tiny-b"), ("b", "tiny-a")):
        synthetic.write(tmp_path / name, models=2)
        for kind in KINDS:
            shutil.rmtree(tmp_path / name / kind / left_out)
    return tmp_path / "a", tmp_path / "b", whole


def found(folder) -> synthetic.Study:
    files = [sorted((folder / kind).glob("*/*.json")) for kind in ("speed", "quality")]
    return synthetic.Study(folder, *files, sorted((folder / "models").glob("*/manifest.json")))


def edit(path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_halves_of_a_study_give_the_tables_of_the_whole(halves, tmp_path):
    first, second, whole = halves
    assert merge.merge([first, second], tmp_path / "merged") == [
        f"18 cells of 2 models from 2 runs, in {tmp_path}/merged"
    ]
    summarize(whole.flags(tmp_path / "one"))
    summarize(found(tmp_path / "merged").flags(tmp_path / "two"))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) > 10
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_baseline_of_both_is_taken_from_the_first_and_said(halves, tmp_path):
    first, second, _ = halves
    for kind in KINDS:
        shutil.copytree(first / kind / "tiny-a", second / kind / "tiny-a")
    for variant in ("torch-fp32", "torch-bf16"):
        edit(second / "speed" / "tiny-a" / f"{variant}.json", lambda data: data.update(reason="another run"))
    said = merge.merge([first, second], tmp_path / "merged")
    assert "taken from the first: tiny-a/bnb-int8, tiny-a/bnb-nf4" in said[1]
    assert json.loads((tmp_path / "merged" / "speed" / "tiny-a" / "torch-bf16.json").read_text())["reason"] == ""


def test_one_cell_with_two_accuracies_is_refused(halves, tmp_path):
    first, second, _ = halves
    for kind in KINDS:
        shutil.copytree(first / kind / "tiny-a", second / kind / "tiny-a")
    path = second / "quality" / "tiny-a" / "bnb-nf4.npz"
    with np.load(path) as arrays:
        changed = {name: values + (1 if name.endswith("/nll") else 0) for name, values in arrays.items()}
    np.savez(path, **changed)
    with pytest.raises(UserError, match=r"bnb-nf4\.npz are of one cell and differ"):
        merge.merge([first, second], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_other_bytes_another_protocol_another_schema_and_another_machine_are_refused_by_name(halves, tmp_path):
    first, second, _ = halves
    shutil.copytree(first / "models" / "tiny-a", second / "models" / "tiny-a")
    edit(second / "models" / "tiny-a" / "manifest.json", lambda data: data.update(digest="e" * 64))
    with pytest.raises(UserError, match=r"tiny-a/manifest\.json are of different bytes"):
        merge.merge([first, second], tmp_path / "merged")
    shutil.rmtree(second / "models" / "tiny-a")
    path = second / "speed" / "tiny-b" / "torch-bf16.json"
    for change, words in (
        (lambda data: data["protocols"]["standard"].update(new_tokens=999), "protocols.standard.new_tokens is "),
        (lambda data: data.update(schema=1), "schema is 2 in"),
        (lambda data: data.update(study="other"), "study is 'synthetic' in"),
        (lambda data: data["environment"].update(threads=64, digest="f" * 64), "threads: 1 and 64"),
    ):
        before = path.read_text()
        edit(path, change)
        with pytest.raises(UserError, match=words):
            merge.merge([first, second], tmp_path / "merged")
        path.write_text(before)
    assert merge.merge([first, second], tmp_path / "merged")


def test_two_machines_with_a_model_each_are_put_together_and_said(halves, tmp_path):
    first, second, _ = halves
    for kind in ("speed", "quality"):
        for path in (second / kind).glob("*/*.json"):
            edit(path, lambda data: data["environment"].update(threads=64, digest="f" * 64))
    assert "2 environments" in merge.merge([first, second], tmp_path / "merged")[1]


def halves_by_machine(tmp_path):
    """A study of two models on two kinds of machine, and its halves: one kind each, accuracy taken on the first."""
    whole = synthetic.write_machines(tmp_path / "whole", models=2, variants=("torch-fp32", "bnb-int8", "onnx-int8-kv"))
    for name, left_out in (("a", "arm"), ("b", "cpu-amx")):
        shutil.copytree(whole.folder, tmp_path / name)
        for kind in ("speed", "quality"):
            shutil.rmtree(tmp_path / name / kind / left_out, ignore_errors=True)
    return tmp_path / "a", tmp_path / "b", whole


def test_halves_by_machine_give_the_tables_of_the_whole(tmp_path):
    first, second, whole = halves_by_machine(tmp_path)
    said = merge.merge([first, second], tmp_path / "merged")
    assert said == [f"12 cells of 2 models on 2 kinds of machine from 2 runs, in {tmp_path}/merged"]
    kinds = ["--machines", json.dumps(synthetic.KINDS)]
    for folder in (whole.folder, tmp_path / "merged"):
        files = {kind: sorted((folder / kind).glob("*/*/*.json")) for kind in ("speed", "quality")}
        study = synthetic.Study(folder, *files.values(), sorted((folder / "models").glob("*/manifest.json")))
        summarize([*study.flags(folder / "tables"), *kinds])
    names = sorted(path.name for path in (whole.folder / "tables").iterdir())
    assert "machines.csv" in names and "summary.csv" in names
    for name in names:
        one, two = ((folder / "tables" / name).read_bytes() for folder in (whole.folder, tmp_path / "merged"))
        assert one == two, name


def test_one_kind_of_machine_in_two_environments_is_refused(tmp_path):
    first, second, _ = halves_by_machine(tmp_path)
    edit(
        second / "speed" / "arm" / "tiny-a" / "bnb-int8.json", lambda data: data["environment"].update(digest="f" * 64)
    )
    with pytest.raises(UserError, match="ran in two environments"):
        merge.merge([first, second], tmp_path / "merged")


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(UserError, match="has no speed/ and no quality/"):
        merge.merge([tmp_path], tmp_path / "merged")
