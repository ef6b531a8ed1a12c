"""A table that no stage can have written is one line for whoever reads it."""

import pandas as pd
import pytest

from tests import synthetic
from workflow.tradeoff import tables
from workflow.tradeoff.decide.__main__ import main as decide
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.report import page, show
from workflow.tradeoff.summarize.__main__ import main as summarize


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    study = synthetic.write(folder, models=1)
    summarize(study.flags(folder / "tables"))
    return (folder / "tables" / "summary.csv").read_text()


def lacking(name):
    return lambda path: pd.read_csv(path).drop(columns=name).to_csv(path, index=False)


def with_value(name, value):
    return lambda path: pd.read_csv(path).astype({name: object}).assign(**{name: value}).to_csv(path, index=False)


CHANGES = {
    "no file": (lambda path: path.unlink(), "is not there: run the study first"),
    "empty": (lambda path: path.write_text(""), "is no table (No columns"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is no table ("),
    "ragged": (lambda path: path.write_text("a,b\n1,2\n1,2,3\n"), "is no table ("),
    "a head alone": (lambda path: pd.read_csv(path)[:0].to_csv(path, index=False), "has no rows"),
    "no speedup": (lacking("speedup"), "lacks the column speedup"),
    "no status": (lacking("status"), "lacks the column status"),
    "words for figures": (with_value("speedup", "fast"), "not all of the column speedup are numbers"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_summary_is_one_line_in_all_that_read_it(summary, tmp_path, change):
    path = tmp_path / "summary.csv"
    path.write_text(summary)
    spoil, words = CHANGES[change]
    spoil(path)
    flags = ["--tables", str(tmp_path)]
    readers = [lambda: show.main(flags), lambda: decide([*flags, "--objective", "speed"])]
    if change not in ("no file", "words for figures"):  # of a missing one the report names all that it lacks
        readers.append(lambda: page.tables(tmp_path))
    for read in readers:
        with pytest.raises(UserError) as error:
            read()
        assert str(error.value).startswith(str(path)) and words in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_an_unknown_variant_is_named(summary, tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text(summary.replace("onnx-int8-kv", "onnx-int3-kv"))
    with pytest.raises(UserError, match="unknown variant onnx-int3-kv: --define says"):
        decide(["--tables", str(tmp_path), "--objective", "speed"])


def test_a_table_that_nothing_was_asked_of_may_be_empty(tmp_path):
    (tmp_path / "loads.csv").write_text("model,load\n")
    assert tables.read(tmp_path / "loads.csv").empty
