"""docs/architectures.md says what a run of each architecture gives: tiny models with random weights, by all steps."""

import re

import pytest

from tests import architectures
from tests.bench import architectures as bench

# of the page's columns: the cheap ones of all; those of ONNX of two whose operators torch cannot export by itself, and
# of one that cannot be exported
TRIED = (bench.FETCHED, "torch-fp32")
ONNX = tuple(column for column in bench.COLUMNS if column.startswith("onnx"))
EXPORTED = ("Cohere", "Phi-3, longrope", "Mixtral")


@pytest.fixture(scope="module")
def page():
    return bench.table(bench.PAGE.read_text())


def test_the_page_has_every_architecture_and_a_reason_for_every_no(page):
    assert len(architectures.MODELS) >= 24 and list(page) == list(architectures.MODELS)
    numbers = {int(number) for number in re.findall(r"^(\d+)\. \S", bench.PAGE.read_text(), re.MULTILINE)}
    cells = [cell for row in page.values() for cell in row.values()]
    assert {int(cell[4:-1]) for cell in cells if not bench.runs(cell)} == numbers


@pytest.mark.parametrize("name", architectures.MODELS)
def test_an_architecture_does_what_the_page_says(name, page, tmp_path, capfd):
    attempt = bench.Attempt(name, tmp_path)
    for column in TRIED + (ONNX if name in EXPORTED else ()):
        found = attempt.column(column)
        assert bench.runs(found) == bench.runs(page[name][column]), f"{column}: {found}"
        assert "Error" not in found, "no library's own words, where it was foreseen"
    assert "prim::" not in "".join(capfd.readouterr()), "no graph on the terminal"
