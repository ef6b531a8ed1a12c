"""How a table's numbers, heads and intervals are written, and that each figure and table has its caption."""

import re
from pathlib import Path

import pandas as pd
import pytest

from workflow.tradeoff.decide import decision
from workflow.tradeoff.report import figures, htmltables, markdown
from workflow.tradeoff.summarize import build

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("itl_p50_ms", "ITL p50 ms"), ("memory_reduction_pct", "memory reduction %"), ("weight_gb", "weight GB"),
        ("decode_tokens_per_s", "decode tokens/s"), ("graph_over_eager", "graph over eager ×"),
        ("weight_reduction_over_onnx_fp32_pct", "weight reduction over ONNX FP32 %"), ("model", "model"),
        ("eager_busy_us_per_token", "eager busy µs per token"), ("speedup", "speedup ×"),
    ],
)  # fmt: skip
def test_heads_are_words_with_units(name, shown):
    assert markdown.head(name) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "–"), (3, "3"), (1234567.0, "1,234,567"), (1234.5, "1,234"), (12.3456, "12.35"),
        (0.000012, "1.2e-05"), (0.00012346, "0.0001235"), (-0.0, "0"), (-2.5, "-2.5"),
    ],
)  # fmt: skip
def test_numbers_for_people(value, shown):
    assert markdown.number(value) == shown


def test_intervals_fold_into_one_column():
    frame = pd.DataFrame(
        {
            "a": ["x|y"],
            "v": [2.0],
            "v_low": [1.0],
            "v_high": [3.0],
            "d_pct": [5.0],
            "d_low_pct": [4.0],
            "d_high_pct": [6.0],
        }
    )
    assert markdown.table(frame).splitlines()[2] == "| x\\|y | 2 [1, 3] | 5 [4, 6] |"
    assert markdown.table(frame, {"v": "value"}).splitlines() == ["| value [95%] |", "| ---: |", "| 2 [1, 3] |"]


def test_rows_of_a_model_can_be_shown_alone_where_there_are_several():
    table = pd.DataFrame(
        {"model": ["a<b", "c", "c"], "variant": ["v"] * 3, "status": ["ok", None, "ok"], "x": [1, 2, 3]}
    )
    text = htmltables.page(table, "t", "n")
    assert re.findall(r'<label>(\w+) <select data-column="(\d)">', text) == [("model", "0")]
    assert "<option>a&lt;b</option><option>c</option>" in text and "<output>3 rows</output>" in text
    assert "<select" not in htmltables.page(table.iloc[1:2], "t", "n")


def test_every_figure_and_table_has_its_caption():
    for name in figures.FIGURES:
        assert (ROOT / f"report/figures/{name}.rst").is_file()
    for name in (*build.TABLES, *decision.CSVS):
        assert (ROOT / f"report/tables/{name}.rst").is_file()
