"""An export is held against torch over the lengths that a study scores, whole and through its cache."""

import pytest
import torch

from tests import tiny
from workflow.tradeoff import files
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import export, parity


def made(tmp_path, kind, longest, *flags, **settings):
    config = tiny.config(kind, context=128)
    for name, value in settings.items():
        setattr(config, name, value)
    model = tiny.build(tmp_path / "model", kind, settings=config, trained=kind == "llama")
    files.write_manifest(model, source={})
    output = tmp_path / "onnx"
    flags = ["--model-folder", str(model), "--threads", "1", "--longest", str(longest), "--output", str(output), *flags]
    export.main(flags)
    return files.read_manifest(output)["parity"]


@pytest.mark.parametrize(
    ("longest", "context", "expected"),
    [(512, 2048, [16, 128, 512]), (2048, 512, [16, 128, 512]), (64, 24, [16, 24]), (32, 8, [8]), (0, 4096, [16])],
)
def test_lengths_reach_from_short_to_the_longest_that_fits(longest, context, expected):
    assert parity.lengths(longest, context) == expected


def test_what_changes_with_length_is_seen_at_that_length_alone(tmp_path, monkeypatch):
    """Planted: other rotations from position 32 on, as long contexts have; a short text shows none."""
    whole = export.trace

    def trace(network, output, cache):
        rotary = network.model.rotary_emb
        plain = rotary.forward
        rotary.forward = lambda x, position_ids: plain(
            x, position_ids=torch.where(position_ids < 32, position_ids, 6 * position_ids)
        )
        whole(network, output, cache)

    monkeypatch.setattr(export, "trace", trace)
    short = made(tmp_path / "short", "llama", 16, "--cache")
    assert short["max_abs_difference"] < 1e-4 and {entry["tokens"] for entry in short["lengths"]} == {16}
    with pytest.raises(CellFailure, match=r"diverged: .* does not compute what the model does: .* at 128 \(whole\)"):
        made(tmp_path / "long", "llama", 128, "--cache")


@pytest.mark.parametrize("kind", ["gemma2", "falcon", "bigcode"])
def test_soft_caps_and_shared_keys_pass_whole_and_cached(tmp_path, kind):
    found = made(tmp_path, kind, 128, "--cache")
    # float32 sums in another order; tiny models differ by some 1e-7
    assert found["max_abs_difference"] < 1e-5 and found["same_top"] == 1 and found["greedy_agrees"]
    assert [(entry["tokens"], entry["way"]) for entry in found["lengths"]] == [
        (tokens, way) for tokens in (16, 32, 128) for way in ("whole", "cached")
    ]


class Engine:
    """Logits by a table, and a cache of which the fault depends."""

    past, context = {"past": None}, 64

    def __init__(self, fault=0.0, beyond=0):
        self.fault, self.beyond = fault, beyond

    def score(self, ids):
        return torch.nn.functional.one_hot(ids, 50).float()

    def run(self, ids, cache, length):
        logits = self.score(ids)
        return (logits + self.fault if length > self.beyond else logits), cache


@pytest.mark.parametrize(("fault", "beyond", "wrong"), [(0.0, 0, []), (0.5, 40, [64]), (0.5, 0, [16, 64])])
def test_a_cache_that_goes_wrong_further_on_is_seen(fault, beyond, wrong):
    engine = Engine(fault, beyond)
    cases = []
    for length in parity.lengths(64, 64):
        ids = parity.probe(length, 50)
        cases.append(parity.Expected(ids, torch.arange(length), engine.score(ids)[0]))
    found = parity.compare(engine, cases)
    assert [entry["tokens"] for entry in found if entry["max_abs_difference"] > parity.TOLERANCE] == wrong
    if wrong:
        with pytest.raises(CellFailure, match=r"\(cached\)"):
            export.check({"lengths": found})
