"""A process of its own: what it says, how it ends, and what that means for a cell."""

import os
import signal
import sys
import time

import pytest

from tests import tiny
from tests.serving import killed, refuses, says
from workflow.tradeoff import files
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate import __main__ as evaluate
from workflow.tradeoff.measure import __main__ as measure
from workflow.tradeoff.run import fork, shortage
from workflow.tradeoff.variants import VARIANTS

BEFORE = shortage.Available(7_000, "a test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "gpt2")


def breaks(argv):
    raise ValueError("a bug")


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
            time.sleep(30)
        print("gone", file=sys.stderr)

    start = time.monotonic()
    code, text = fork.run(leaves, [])
    assert (code, text) == (0, "gone\n") and time.monotonic() - start < 25


PLANTED = """
import os
touched = os.getpid()  # as a package does that asks the driver for its cards when it is imported

def main(argv):
    if os.getpid() != touched:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
"""


def test_what_touches_cuda_when_it_is_imported_ends_a_fork_and_no_fresh_process(tmp_path, monkeypatch, capfd):
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fork.run("planted:main", [])[0] == 1
    assert "Cannot re-initialize CUDA" in capfd.readouterr().err
    assert fork.run("planted:main", [], fresh=True) == (0, "")


def test_a_fresh_process_ends_as_a_forked_one():
    assert fork.run("tests.serving:says", ["a", "b"], fresh=True) == (0, "first\nsecond\na b\n")
    code, text = fork.run("tests.serving:refuses", [], quiet=True, fresh=True)
    assert code == 1 and text.splitlines()[-1] == "error: no such thing: take another"
    assert fork.run("tests.serving:killed", [], fresh=True)[0] == -9


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_that_will_use_a_gpu_is_forked(device, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        measure.pairs, "measure", lambda cell, baseline, *_: seen.update(fresh=(cell, baseline)) or 1 / 0
    )
    monkeypatch.setattr(fork, "run", lambda *_, **options: seen.update(evaluated=options["fresh"]) or (0, ""))
    model = tmp_path / "model"
    model.mkdir()
    files.write_manifest(model, source={})
    common = {"study": "s", "model": "m", "variant": "bnb-nf4", "artifact": model, "baseline": "torch-fp16"}
    common |= {"model-folder": model, "output": tmp_path / "cell.json", "device": device, "threads": 1}
    own = {"baseline-artifact": model, "warmup": 1, "pairs": 2, "turns": 2, "prompt-tokens": 8, "new-tokens": 4}
    own |= {"study-runs": 1, "precision": 0.05, "budget-s": 1, "lost-share": 0.05, "pairing": "auto"}
    with pytest.raises(ZeroDivisionError):
        measure.main(flags(common | own))
    evaluate.apart(flags(common | {"corpus": tmp_path / "c.json", "conventions": "study"}))
    fresh = device == "cuda"
    assert [runner.fresh for runner in seen["fresh"]] == [fresh, fresh] and seen["evaluated"] == fresh


def flags(values):
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


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
