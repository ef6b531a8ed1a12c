"""A corpus is read as far as it is needed, and its file is JSON for whoever reads it whole."""

import json

import pytest

from workflow.tradeoff import corpus

ROWS = ["", " = A = \n", " One, \n", '"],\n', "]", "é\u2028\n", "no end"]


def test_what_is_written_is_read(tmp_path):
    facts = {"name": "c", "documents": [1], "source": {"rows": "[", "path": '"rows": [\n'}}
    corpus.write(tmp_path / "c.json", facts, ROWS)
    found = corpus.read(tmp_path / "c.json")
    assert list(found.pop("rows")) == ROWS and found == facts
    assert json.loads((tmp_path / "c.json").read_text()) == facts | {"rows": ROWS}
    rows = corpus.read(tmp_path / "c.json")["rows"]
    assert next(iter(rows)) == "" and list(rows) == list(rows) == ROWS


def test_an_empty_one_and_another_program_s(tmp_path):
    corpus.write(tmp_path / "c.json", {"documents": []}, [])
    assert list(corpus.read(tmp_path / "c.json")["rows"]) == []
    for indent in (None, 1):
        (tmp_path / "d.json").write_text(json.dumps({"rows": ROWS, "documents": [0]}, indent=indent))
        found = corpus.read(tmp_path / "d.json")
        assert list(found["rows"]) == ROWS and found["documents"] == [0]


def test_only_what_is_needed_is_read(tmp_path):
    corpus.write(tmp_path / "c.json", {"documents": [0]}, (f"row {index}\n" for index in range(10_000)))
    with open(tmp_path / "c.json", "r+b") as file:
        file.seek(60_000)
        file.write(b"\0" * 100)
    rows = iter(corpus.read(tmp_path / "c.json")["rows"])
    assert [next(rows) for _ in range(3000)][-1] == "row 2999\n"
    with pytest.raises(ValueError):
        list(rows)
