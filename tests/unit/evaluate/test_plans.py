"""A text is read and cut into tokens once a model: the cells after its baseline take what it scored."""

import dataclasses
import json

import numpy as np
import pytest

from tests.scored import NAMES
from tests.unit.evaluate.stage import Fake
from workflow.tradeoff import engines
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate import conventions, plans
from workflow.tradeoff.evaluate.conventions import Plan, Window


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(engines, "load", lambda *_: Fake())


def refuse(*_):
    raise AssertionError("the text is cut again")


def test_a_cell_scores_what_its_baseline_scored_without_reading_the_text(stage, monkeypatch):
    base = stage.run("torch-fp32")
    monkeypatch.setattr(conventions, "plan", refuse)
    cell = stage.run("torch-bf16")
    assert cell["status"] == "ok" and list(cell["conventions"]) == NAMES
    for name, entry in cell["conventions"].items():
        figures = ("mean_nll", "perplexity", "paper_loss", "word_perplexity", "tokens_per_s")
        said = {key: value for key, value in entry.items() if key not in figures}
        assert said.items() <= base["conventions"][name].items() and entry["mean_nll"] > 0


def test_what_the_baseline_did_not_keep_is_cut_again(stage, monkeypatch):
    stage.run("torch-fp32", names=["windows-64"])
    monkeypatch.setattr(conventions, "plan", refuse)
    assert "is cut again" in stage.run("torch-bf16", "--max-tokens", "100", names=["windows-64"])["reason"]


def test_plans_that_were_changed_are_refused(stage):
    stage.run("torch-fp32", names=["windows-64"])
    stage.path("torch-fp32").with_suffix(".plans.npz").write_bytes(b"other")
    with pytest.raises(UserError, match="evaluate the baseline again"):
        stage.run("torch-bf16", names=["windows-64"])


def test_a_plan_comes_back_as_it_was(tmp_path):
    windows = [Window(np.arange(5), 4, 0), Window(np.arange(7, 10), 1, 3)]
    plan = Plan("word-8", windows, "never", "joined", 8, {"words": 9})
    asked = {"conventions": ["word-8"], "max_tokens": 0, "bos": "auto"}
    np.savez(tmp_path / "plans.npz", **plans.arrays([plan], asked))
    with np.load(tmp_path / "plans.npz") as found:
        (back,) = plans.stored(dict(found), asked)
        assert plans.stored(dict(found), asked | {"bos": "never"}) is None
    assert dataclasses.replace(back, windows=[]) == dataclasses.replace(plan, windows=[])
    for window, other in zip(back.windows, windows, strict=True):
        np.testing.assert_array_equal(window.tokens, other.tokens)
        assert (window.scored, window.block) == (other.scored, other.block)
    assert plans.stored({}, asked) is None and json.dumps(back.facts)
