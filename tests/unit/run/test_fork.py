"""A process of its own: what it says, how it ends, and what that means for a cell."""

import os
import signal
import sys
import time

import pytest

from tests import tiny
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.run import fork, shortage
from workflow.tradeoff.variants import VARIANTS

BEFORE = shortage.Available(7_000, "a test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "gpt2")


def says(argv):
    print("first", file=sys.stderr, flush=True)
    os.write(2, b"second\n")
    print(*argv, file=sys.stderr)


def refuses(argv):
    raise UserError("no such thing: take another")


def breaks(argv):
    raise ValueError("a bug")


def killed(argv):
    print("working", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def stopped(argv):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("main", "code", "last"),
    [
        (says, 0, "a b"),
        (refuses, 1, "error: no such thing: take another"),
        (breaks, 1, "ValueError: a bug"),
        (killed, -9, "working"),
        (stopped, -15, ""),
    ],
)
def test_how_it_ends_and_its_last_words(main, code, last, capfd):
    found, text = fork.run(main, ["a", "b"])
    assert found == code and (text.splitlines() or [""])[-1] == last
    assert capfd.readouterr().err == text


def test_a_quiet_one_is_heard_only_when_it_failed(capfd):
    assert fork.run(says, [], quiet=True)[1] and capfd.readouterr().err == ""
    assert fork.run(breaks, [], quiet=True)[1] == capfd.readouterr().err != ""


def test_a_helper_that_outlives_it_is_not_waited_for():
    def leaves(argv):
        if not os.fork():
            time.sleep(5)
        print("gone", file=sys.stderr)

    start = time.monotonic()
    code, text = fork.run(leaves, [])
    assert (code, text) == (0, "gone\n") and time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (-9, "", "out_of_memory"),
        (1, "RuntimeError: CUDA error: out of memory", "out_of_memory"),
        (-6, "terminate called after throwing\n  what():  std::bad_alloc", "out_of_memory"),
        (-6, "memory allocation of 4096 bytes failed", "out_of_memory"),
        (-11, "boom", "error"),
        (1, "ValueError: no", "error"),
    ],
)
def test_a_dead_process_is_data(folder, code, text, status):
    found = fork.failure(code, text, VARIANTS["torch-fp32"], folder, BEFORE)
    assert isinstance(found, CellFailure) and found.status == status
    if status == "out_of_memory":
        assert " bytes, 7,000 bytes were available" in found.reason


def test_a_killed_process_tells_what_its_weights_need(folder):
    code, text = fork.run(killed, [])
    weights = (folder / "model.safetensors").stat().st_size
    reason = fork.failure(code, text, VARIANTS["torch-fp16"], folder, BEFORE).reason
    assert reason.startswith(f"the weights alone need {weights // 2:,} bytes, 7,000 bytes were available (a test): the")
    assert "killed (signal 9)" in reason and "before it began" in reason


def test_a_broken_study_in_a_process_stops_the_study(folder):
    found = fork.failure(1, "image: host\nerror: lower one of them", VARIANTS["torch-fp32"], folder, BEFORE)
    assert isinstance(found, UserError)
