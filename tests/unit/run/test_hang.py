"""A process that gets nowhere: ended from outside with all that it started, wherever it hangs, and said in one line."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.serving import counted_from, hangs
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.run import fork, hang

STACK = """Thread 0x1 (most recent call first):
  File "/x/workflow/tradeoff/measure/telemetry.py", line 9 in watch

Current thread 0x2 (most recent call first):
  File "/y/site-packages/vllm/worker.py", line 5 in execute_model
  File "/x/workflow/tradeoff/engines/vllm.py", line 203 in score
  File "/x/workflow/tradeoff/evaluate/scoring.py", line 81 in score
  File "/x/workflow/tradeoff/run/fork.py", line 70 in perform
  File "/x/workflow/tradeoff/measure/process.py", line 100 in __init__
"""


def limit(seconds=0.3):
    return hang.Limit("evaluate", seconds, Path("results/s/quality/m/v.json"))


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """No function of the package's is in these stacks, so none is waited for."""
    monkeypatch.setattr(hang, "SAYING_S", 1)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("target", "fresh"), [(hangs, False), ("tests.serving:hangs", True)], ids=["forked", "fresh"])
def test_a_call_that_never_returns_is_ended_with_its_family(target, fresh, capfd, tmp_path, monkeypatch):
    """It holds Python's lock inside C, as a library's call may, with a child and an orphan of a child beside it."""
    monkeypatch.setattr(hang, "Wait", counted_from(tmp_path / "family"))
    with pytest.raises(CellFailure) as failed:
        fork.run(target, [str(tmp_path / "family")], fresh=fresh, limit=limit())
    assert failed.value.status == "hung"
    assert failed.value.reason.startswith("evaluate: score windows-512, 3 of 9 windows done: no progress for ")
    assert failed.value.reason.endswith(
        "so it was ended: raise the config key hung_after_s if it only needs longer, delete results/s/quality/m/v.json "
        "and run again"
    )
    family = [int(pid) for pid in (tmp_path / "family").read_text().split()]
    assert len(family) == 3 and not any(alive(pid) for pid in family)
    # the log shows where it stood
    assert "in never_returns" in capfd.readouterr().err


def test_one_that_goes_on_is_not_ended_however_long_it_takes():
    def steps(argv):
        for step in range(12):
            hang.at(f"step {step}")
            time.sleep(0.1)
        print("done", file=sys.stderr)

    assert fork.run(steps, [], limit=limit(1)) == (0, "done\n")
    assert fork.run(lambda argv: time.sleep(0.4), [], limit=limit(0)) == (0, "")


def test_one_that_closes_what_it_speaks_through_is_ended_too():
    def silent(argv):
        os.close(2)
        time.sleep(60)

    with pytest.raises(CellFailure, match=r"hung: evaluate: start: no progress for 0\.3 s"):
        fork.run(silent, [], limit=limit())


def test_a_pause_of_the_one_that_waits_is_nobodys_fault(monkeypatch):
    clock = iter([0.0, 1.0, 9000.0, 9001.0, 9005.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    wait = hang.Wait(limit(10))
    assert [wait.over() for _ in range(4)] == [False, False, False, True]


def test_where_it_stood_is_the_innermost_line_of_this_package():
    assert hang.where(STACK) == "score (engines/vllm.py, line 203)"
    parents = [line for line in STACK.splitlines() if "engines/" not in line and "evaluate/" not in line]
    assert hang.where("\n".join(parents)) == ""
    assert hang.where(STACK.partition("Current")[0]) == hang.where("Current thread 0x2\n") == ""
    assert "no progress for 3,600 s, in score (engines/vllm.py, line 203), so" in str(
        limit(3600).failure("load", hang.where(STACK))
    )


def test_nobody_waits_for_a_stage_that_is_run_by_hand():
    hang.at("load")


def test_what_has_ended_cannot_be_killed_again():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    hang.kill(child)
