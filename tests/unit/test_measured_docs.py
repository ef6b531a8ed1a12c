"""Tables of docs that stand beside their raw files are those files'."""

import json
from pathlib import Path

from tests.bench import accuracies, calibrated, goals, power, speeds
from workflow.tradeoff.stats import Interval

DOCS = Path(__file__).parents[2] / "docs"


def test_the_speeds_of_eight_billion_parameters():
    assert speeds.table([DOCS / "large" / "raw"]) in (DOCS / "large" / "README.md").read_text()


def test_the_speeds_beside_vllm():
    assert speeds.table([DOCS / "vllm" / "raw"]) in (DOCS / "vllm" / "README.md").read_text()


def test_the_speeds_on_an_h100():
    page = (DOCS / "h100" / "README.md").read_text()
    assert speeds.table([DOCS / "h100" / "raw" / "speed"]) in page
    assert accuracies.table(DOCS / "h100" / "tables") in page
    assert goals.table(DOCS) in page


def test_the_runs_beside_a_neighbour_in_bursts():
    runs = power.read(DOCS.parent / power.BURSTS)
    assert len(runs) == 60 and power.table(runs) in (DOCS / "power.md").read_text()


def test_a_goal_is_reached_by_its_whole_interval():
    told = [goals.verdict(Interval(1.7, low, high, 3, ""), 1.7) for low, high in [(1.7, 1.8), (1.6, 1.9), (1.5, 1.69)]]
    assert told == ["reached", "not told", "not reached"]
    assert goals.verdict(Interval(1.6, float("nan"), float("nan"), 1, ""), 1.7) == "not reached"


def test_vllms_server_wrote_what_was_measured_on_an_h100():
    raw = DOCS / "h100" / "raw"
    measured = json.loads((raw / "quality" / "vllm-fp16.json").read_text())["generated"]
    served = [json.loads(line) for line in (raw / "serve" / "served.jsonl").read_text().splitlines()]
    assert [(one["prompt"], one["ids"]) for one in served] == [(one["prompt"], one["token_ids"]) for one in measured]


def test_the_accuracy_of_learned_rounding():
    rows = calibrated.table(
        DOCS / "calibrated", "smollm2-135m", "torch-fp32", "nearest", ["nearest", "learned", "mixed"]
    )
    assert rows in (DOCS / "calibrated" / "README.md").read_text()
