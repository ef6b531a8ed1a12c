"""Two synthetic runs side by side: planted ratios, what differs, what cannot be compared, and bad folders."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests import synthetic
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import sha256
from workflow.tradeoff.report import compare as compare_show
from workflow.tradeoff.report import compared as compare
from workflow.tradeoff.summarize.__main__ import main as summarize_main

OTHER = {
    "threads": 4,
    "machine": {**synthetic.ENVIRONMENT["machine"], "cpu": "New CPU"},
    "libraries": {**synthetic.ENVIRONMENT["libraries"], "torch": "2.14.0"},
    "digest": "9" * 64,  # all digits: it must not be read as a number
}


def finished(folder, **options):
    study = synthetic.write(folder, models=2, **options)
    summarize_main(study.flags(folder / "tables"))
    return folder


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """b is another machine that halves every time and scores the same text; it lacks a variant, and a cell failed."""
    root = tmp_path_factory.mktemp("runs")
    one = finished(root / "a")
    faults = {("tiny-a", "bnb-nf4"): "out_of_memory"}
    two = finished(root / "b", environment=OTHER, variants=synthetic.CPU_VARIANTS[:-1], faults=faults)

    def faster(data):
        for run in (data.get("protocols") or {}).get("standard", {}).get("replicates", []):
            for sample in run["samples"]:
                sample["ttft_s"] /= 2
                sample["itl_s"] = [seconds / 2 for seconds in sample["itl_s"]]

    for path in two.glob("speed/*/*.json"):
        edit(path, faster)
    path = two / "quality" / "tiny-a" / "onnx-int8.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["windows-512/nll"] = arrays["windows-512/nll"] + np.float32(0.01)
    np.savez(path, **arrays)
    edit(path.with_suffix(".json"), lambda data: data["digests"].update(scores=sha256(path)))
    study = synthetic.Study(two, *(sorted(two.glob(f"{kind}/*/*.json")) for kind in ("speed", "quality", "models")))
    summarize_main(study.flags(two / "tables"))
    return one, two


@pytest.fixture(scope="module")
def runs(folders):
    return tuple(map(compare.read, folders))


@pytest.fixture(scope="module")
def tables(runs):
    return {name: frame.set_index(["model", "variant"]) for name, frame in compare.compare(*runs).items()}


def test_planted_ratios_come_out_with_their_intervals(tables):
    speed = tables["decode_tokens_per_s"].loc["tiny-a", "onnx-int8-kv"]
    assert speed["ratio"] == pytest.approx(2) and speed["verdict"] == "faster"
    assert speed["ratio_low"] < 2 < speed["ratio_high"] and speed["a_low"] < speed["a"] < speed["a_high"]
    latency = tables["ttft_ms"].loc["tiny-b", "torch-fp32"]
    assert latency["ratio"] == pytest.approx(0.5) and latency["verdict"] == "faster"


def test_equal_memory_is_the_same_and_has_no_interval(tables):
    assert set(tables["memory_mb"]["verdict"]) == {"the same", "b: out of memory"}
    assert tables["memory_mb"]["ratio_low"].isna().all()


def test_perplexity_is_paired_over_the_same_tokens(tables):
    row = tables["perplexity"].loc["tiny-a", "onnx-int8"]
    assert row["ratio"] == pytest.approx(math.exp(0.01), rel=1e-6)
    assert row["ratio_high"] - row["ratio_low"] < 1e-4 and row["verdict"] == "worse"
    assert row["a_low"] < row["a"] < row["a_high"]
    same = tables["perplexity"].loc["tiny-b", "torch-fp32"]
    assert same["ratio"] == 1 and same["verdict"] == "tie"


def test_a_cell_that_failed_in_one_run_says_so(tables):
    for name in compare.METRICS:
        row = tables[name].loc["tiny-a", "bnb-nf4"]
        assert row["verdict"] == "b: out of memory" and pd.isna(row["ratio"]) and not pd.isna(row["a"])


def test_cells_of_one_run_alone_are_listed(runs, tables):
    assert compare.alone(*runs) == {"a": ["tiny-a/onnx-int4-kv", "tiny-b/onnx-int4-kv"], "b": []}
    assert ("tiny-a", "onnx-int4-kv") not in tables["decode_tokens_per_s"].index


def test_environments_differ_field_by_field(runs):
    found = compare.differences(*runs).set_index("field")
    assert set(found.index) == {"threads", "machine.cpu", "libraries.torch"}
    assert tuple(found.loc["libraries.torch"]) == ("2.13.0", "2.14.0")


def test_the_first_warning_says_what_a_ratio_is(runs, folders, tmp_path):
    one, two = runs
    words = compare.warnings(one, two, compare.differences(one, two))
    assert len(words) == 1 and "no speedup of a variant" in words[0] and "machine.cpu" in words[0]
    same = compare.warnings(one, one, compare.differences(one, one))
    assert same == ["One environment and one version of the code: what differs is the config, the day, or noise."]
    other = finished(tmp_path / "c", environment={"git": {"commit": "f" * 40, "dirty": True}})
    edit(other / "environment.json", lambda data: data.update(config={"measure": {"prompt_tokens": 64}}))
    version = compare.read(other)
    words = compare.warnings(one, version, compare.differences(one, version))
    assert "two versions of the code" in words[0] and "protocols differ (config.measure.prompt_tokens)" in words[1]


def test_cells_of_another_environment_than_the_runs_are_named(folders, tmp_path):
    mixed = finished(tmp_path / "c", faults={("tiny-a", "bnb-int8"): "other_machine"})
    one, two = compare.read(folders[0]), compare.read(mixed)
    words = compare.warnings(one, two, compare.differences(one, two))
    assert any(line.startswith("In b some cells") and line.endswith("tiny-a/bnb-int8.") for line in words)


def test_another_text_gives_no_ratio(folders, tmp_path):
    other = finished(tmp_path / "c")
    one = compare.read(folders[0])
    path = other / "quality" / "tiny-a" / "bnb-int8.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["windows-512/token"] = arrays["windows-512/token"] + 1
    np.savez(path, **arrays)
    found = compare.compare(one, compare.read(other))["perplexity"].set_index(["model", "variant"])
    row = found.loc["tiny-a", "bnb-int8"]
    assert row["verdict"] == "not comparable: other tokens were scored" and pd.isna(row["ratio"])
    # without the losses of each token the values alone remain, and only of one text
    path.unlink()
    found = compare.compare(one, compare.read(other))["perplexity"].set_index(["model", "variant"])
    assert found.loc["tiny-a", "bnb-int8"]["verdict"] == "no interval"
    edit(other / "environment.json", lambda data: data.update(config={"corpus": {"name": "other"}}))
    found = compare.compare(one, compare.read(other))["perplexity"].set_index(["model", "variant"])
    assert found.loc["tiny-a", "bnb-int8"]["verdict"] == "not comparable: another text"


def test_one_process_gives_no_verdict(folders, tmp_path):
    table = pd.read_csv(folders[0] / "tables/summary.csv")
    table[["decode_tokens_per_s_low", "decode_tokens_per_s_high", "ttft_ms_low", "ttft_ms_high"]] = math.nan
    (tmp_path / "tables").mkdir()
    table.to_csv(tmp_path / "tables/summary.csv", index=False)
    (tmp_path / "environment.json").write_text((folders[0] / "environment.json").read_text())
    found = compare.compare(compare.read(folders[0]), compare.read(tmp_path))
    assert set(found["decode_tokens_per_s"]["verdict"]) == set(found["ttft_ms"]["verdict"]) == {"no interval"}


def test_markdown_and_terminal_without_torch(folders, tmp_path):
    output = tmp_path / "compare.md"
    code = (
        "import sys; from workflow.tradeoff.report import compare; compare.main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'matplotlib', 'onnxruntime'} & set(sys.modules)"
    )
    flags = [*map(str, folders), "--output", str(output)]
    shown = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True).stdout
    for words in (shown, output.read_text()):
        assert (
            "no speedup of a variant" in " ".join(words.split()) and "New CPU" in words and "libraries.torch" in words
        )
        assert "combined on the log scale" in words and "tiny-b/onnx-int4-kv" in words and "b/a" in words
        assert "nan" not in words and "None" not in words
    for title, _ in compare.METRICS.values():
        assert f"## {title}" in output.read_text() and title in shown


def test_a_narrow_terminal_keeps_the_ratios_interval(runs, capsys, monkeypatch):
    monkeypatch.setattr(compare_show.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    compare_show.terminal(compare_show.Page(*runs))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # without the styles
    assert "The intervals of a and b" in shown and max(map(len, shown.splitlines())) <= 80


def test_bad_folders_are_one_line(folders, tmp_path):
    one, two = map(str, folders)
    with pytest.raises(UserError, match="is no folder"):
        compare_show.main([one, str(tmp_path / "nothing")])
    with pytest.raises(UserError, match=r"no finished run, it lacks tables/summary\.csv and environment\.json"):
        compare_show.main([one, str(tmp_path)])
    with pytest.raises(UserError, match="given twice"):
        compare_show.main([one, one])
    with pytest.raises(UserError, match=r"does not end in \.md"):
        compare_show.main([one, two, "--output", "x.html"])
    bare = finished(tmp_path / "c")
    (bare / "environment.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        compare_show.main([one, str(bare)])
    (bare / "environment.json").write_text("{}")
    table = pd.read_csv(bare / "tables/summary.csv")
    table.assign(model="x").to_csv(bare / "tables/summary.csv", index=False)
    with pytest.raises(UserError, match="no cell in common"):
        compare_show.main([one, str(bare)])
    table.drop(columns="ttft_ms").to_csv(bare / "tables/summary.csv", index=False)
    with pytest.raises(UserError, match="has no ttft_ms"):
        compare_show.main([one, str(bare)])
