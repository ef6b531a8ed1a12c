"""Several kinds of machine in one study: each for itself, one under the other, with the kind in every row."""

import json

import pandas as pd
import pytest

from tests import synthetic
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.summarize.__main__ import main as summarize

VARIANTS = ("torch-fp32", "bnb-int8", "onnx-int8-kv")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    study = synthetic.write_machines(folder, models=2, variants=VARIANTS, loads=synthetic.LOADS[:1])
    summarize([*study.flags(folder / "tables"), "--machines", json.dumps(synthetic.KINDS)])
    return folder / "tables"


def test_every_row_names_its_machine_and_no_ratio_crosses_two(tables, tmp_path):
    summary = pd.read_csv(tables / "summary.csv")
    assert list(summary["machine"]) == ["cpu-amx"] * 6 + ["arm"] * 6
    assert set(summary["status"]) == {"ok"} and not summary["reason"].notna().any()
    # the tables of a kind alone are those of its rows
    alone = synthetic.write(tmp_path, models=2, variants=VARIANTS, seed=2, environment=synthetic.PLACES["arm"])
    summarize(alone.flags(tmp_path / "tables"))
    columns = [name for name in summary if name.startswith(("speedup", "decode", "itl", "memory", "weight"))]
    there = summary[summary["machine"] == "arm"].reset_index(drop=True)
    pd.testing.assert_frame_equal(there[columns], pd.read_csv(tmp_path / "tables" / "summary.csv")[columns])
    for name in ("latency", "loads", "growth", "proof", "memory", "benchmark", "speed_by_precision"):
        table = pd.read_csv(tables / f"{name}.csv")
        assert table.columns[0] == "machine" and set(table["machine"]) == set(synthetic.KINDS), name


def test_accuracy_is_taken_once_and_the_row_says_where(tables):
    summary = pd.read_csv(tables / "summary.csv").set_index(["machine", "model", "variant"])
    assert set(summary["scored_on"]) == {"cpu-amx"}
    for name in ("perplexity", "degradation_pct", "kl_mean", "quality_verdict"):
        assert summary.loc["arm"][name].equals(summary.loc["cpu-amx"][name]), name


def test_what_a_machine_is_comes_from_its_cells(tables):
    machines = pd.read_csv(tables / "machines.csv").set_index("machine")
    assert dict(machines["cpu"]) == {"cpu-amx": "Test CPU @ 2.0 GHz", "arm": "Small CPU"}
    assert list(machines["price_per_hour"]) == [0.4, 0.1] and list(machines["measured"]) == [6, 6]
    assert list(machines["environments"]) == [1, 1]
    assert json.loads((tables / "environments.json").read_text())["arm"]["digest"] == "b" * 64


def test_a_kind_without_its_scorer_has_speed_and_says_that_nothing_was_evaluated(tmp_path):
    study = synthetic.write_machines(tmp_path, variants=VARIANTS)
    arm = [path for path in study.speed if "arm" in path.parts]
    flags = synthetic.Study(tmp_path, arm, [], study.manifests).flags(tmp_path / "tables")
    summarize([*flags, "--machines", json.dumps({"arm": synthetic.KINDS["arm"]})])
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert set(summary["accuracy_status"]) == {"not_evaluated"} and summary["speedup"].notna().sum() == 3
    assert not summary["scored_on"].notna().any()


def test_files_of_a_kind_that_the_config_lacks_are_named(tmp_path):
    study = synthetic.write_machines(tmp_path, variants=VARIANTS)
    with pytest.raises(UserError, match=r"speed/arm/tiny-a/torch-fp32\.json lies in the folder of no kind"):
        summarize([*study.flags(tmp_path / "t"), "--machines", json.dumps({"cpu-amx": synthetic.KINDS["cpu-amx"]})])
