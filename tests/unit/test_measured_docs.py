"""Tables of docs that stand beside their raw files are those files'."""

from pathlib import Path

from tests.bench import calibrated, speeds

DOCS = Path(__file__).parents[2] / "docs"


def test_the_speeds_of_eight_billion_parameters():
    assert speeds.table([DOCS / "large" / "raw"]) in (DOCS / "large" / "README.md").read_text()


def test_the_speeds_beside_vllm():
    assert speeds.table([DOCS / "vllm" / "raw"]) in (DOCS / "vllm" / "README.md").read_text()


def test_the_speeds_on_an_h100():
    assert speeds.table([DOCS / "h100" / "raw" / "speed"]) in (DOCS / "h100" / "README.md").read_text()


def test_the_accuracy_of_learned_rounding():
    rows = calibrated.table(
        DOCS / "calibrated", "smollm2-135m", "torch-fp32", "nearest", ["nearest", "learned", "mixed"]
    )
    assert rows in (DOCS / "calibrated" / "README.md").read_text()
