"""A live process: asked over a socket, stopped while it waits, dead with its parent, and what its death means."""

import gc
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from tests import tiny
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.measure import disturbance
from workflow.tradeoff.measure.process import Process, Runner, words
from workflow.tradeoff.run import hang


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "gpt2")


@pytest.fixture(params=[False, True], ids=["forked", "fresh"])
def process(request, folder):
    runner = Runner("torch-fp32", folder, (), request.param, "tests.serving:spins")
    with Process(runner) as process:
        yield process


def test_it_answers_and_costs_nothing_while_it_waits(process):
    assert process.ask("say", word="hello") == {"said": "hello"}
    found = psutil.Process(process.pid)
    before = found.cpu_times()
    time.sleep(0.1)
    assert found.status() == psutil.STATUS_STOPPED and found.cpu_times() == before
    assert process.ask("say", word="again") == {"said": "again"}


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("break", CellFailure, "error: ValueError: a bug"),
        ("refuse", UserError, "no such thing: take another"),
        ("die", CellFailure, "out_of_memory: .*killed"),
        ("fail", CellFailure, "unsupported: not here"),
    ],
)
def test_what_its_end_means(folder, command, error, words):
    with Process(Runner("torch-fp32", folder, (), server="tests.serving:spins")) as process:
        with pytest.raises(error, match=words):
            process.ask(command)
        pid = process.pid
    assert not psutil.pid_exists(pid)


def test_one_that_does_not_answer_is_ended(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hang, "SAYING_S", 0.1)  # its server is none of the package's functions
    limit = hang.Limit("measure", 0.3, tmp_path / "cell.json")
    with Process(Runner("torch-fp32", folder, (), server="tests.serving:spins")) as process:
        process.runner = replace(process.runner, limit=limit)  # from here on, however slow its start was
        with pytest.raises(CellFailure) as failed:
            process.ask("hang")
        assert not psutil.pid_exists(process.pid)
    assert failed.value.status == "hung"
    assert failed.value.reason.startswith(
        "measure: hang: no progress for 0.3 s, so it was ended: raise the config key "
    )


def test_what_it_was_asked_for_in_words():
    load = {"prompt_tokens": 32, "new_tokens": 8}
    assert words("turn", load) == "a timed generation, 32 prompt and 8 new tokens"
    assert words("warm", load | {"sequences": 4}) == "untimed generations, 4 sequences of 32 prompt and 8 new tokens"
    assert words("study", None) == "the study's protocol"


def test_a_stopped_one_dies_with_a_parent_that_is_killed(folder):
    code = (
        "import sys\nfrom pathlib import Path\nfrom workflow.tradeoff.measure.process import Process, Runner\n"
        f"process = Process(Runner('torch-fp32', Path({str(folder)!r}), (), server='tests.serving:spins'))\n"
        "print(process.pid, flush=True)\nsys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_engine_behind_it(folder):
    flags = ("--model-folder", str(folder), "--device", "cpu", "--threads", "1")
    load = {"prompt_tokens": 4, "new_tokens": 3}
    with Process(Runner("torch-fp32", folder, flags)) as process:
        assert process.ready["load_s"] > 0 and process.ready["torch_threads"] == 1
        assert 0 < process.ready["harness_s"] < 1e-4
        process.ask("warm", load=load, times=1)
        sample = process.ask("turn", load=load)
        longer = process.ask("turn", load=load | {"new_tokens": 5})
        assert [len(taken["itl_s"]) for taken in (sample, longer)] == [2, 4] and sample["calibration_s"] > 0
        assert sample["lost"]["wall_s"] == pytest.approx(sample["ttft_s"] + sum(sample["itl_s"]))
        assert disturbance.share(sample["lost"]) >= 0
        assert process.ask("memory")["decode_peak_bytes"] > 0
        assert process.ask("study", runs=1)["samples"][0]["new_tokens"] == 10
        with pytest.raises(UserError, match="lower one of them"):
            process.ask("turn", load={"prompt_tokens": 512, "new_tokens": 1})


def test_what_cannot_be_imported_ahead_is_left_to_the_process(folder, tmp_path):
    Runner("torch-fp32", tmp_path / "nothing", (), model=folder).warm()
    with pytest.raises(CellFailure) as failed:
        Process(
            Runner(
                "torch-fp32", tmp_path / "nothing", ("--model-folder", str(folder), "--device", "cpu", "--threads", "1")
            )
        )
    assert failed.value.status == "error"
    assert gc.isenabled()
