"""Plant each fault in a tiny trained model, or in the scoring of one, and let diagnose name it."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny
from workflow.tradeoff import engines
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate import conventions, diagnose, hypotheses
from workflow.tradeoff.files import read_json, write_json, write_manifest
from workflow.tradeoff.loaded import corpus_digest

ROWS = [line for line in tiny.TEXT.splitlines() if line]
CONVENTION = "study"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)  # tiny products only lose by sharing
    root = tmp_path_factory.mktemp("trained")
    return {
        # a seed whose Llama learns the text well: the wrong labels must cost more than half a guess
        kind: tiny.build(root / kind, kind, seed=1, trained=True, context=128)
        for kind in ("gpt2", "llama", "llama-untied")
    }


@pytest.fixture
def corpus(tmp_path):
    content = {"rows": ROWS, "documents": [0]}
    write_json(tmp_path / "corpus.json", content | {"digest": corpus_digest(content)})
    return tmp_path / "corpus.json"


def windows(context: int = 128):
    vocabulary = conventions.Vocabulary(lambda text: list(text.encode()), None, None)
    return conventions.plan(CONVENTION, ROWS, [0], vocabulary, context).windows


def scorer(folder, dtype=torch.float32):
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def score(ids, first):
        with torch.inference_mode():
            return network(input_ids=ids, use_cache=False).logits[:, first:]

    return score


def run(tmp_path, folder, corpus, recorded, *, variant="torch-fp32", artifact=None, status="ok"):
    """The diagnosis of a cell whose quality file holds the loss ``recorded`` (None: it diverged)."""
    found = {} if recorded is None else {CONVENTION: {"mean_nll": recorded, "bos": "never"}}
    digests = {"artifact": signed(artifact or folder), "model": signed(folder)}
    digests["corpus"] = corpus_digest(read_json(corpus))
    quality = {"model": "tiny", "status": status, "conventions": found, "digests": digests}
    write_json(tmp_path / "quality.json", quality)
    return diagnosis(tmp_path, folder, corpus, variant, artifact)


def signed(folder):
    """The digest of a folder, which gets a manifest."""
    return write_manifest(folder, source={})["digest"]


def diagnosis(tmp_path, folder, corpus, variant="torch-fp32", artifact=None):
    diagnose.main(
        ["--quality", str(tmp_path / "quality.json"), "--model-folder", str(folder),
         "--artifact", str(artifact or folder),
         "--corpus", str(corpus), "--variant", variant, "--share", "0.5", "--convention", CONVENTION, "--device", "cpu",
         "--threads", "1", "--output", str(tmp_path / "diagnosis.json")]
    )  # fmt: skip
    return read_json(tmp_path / "diagnosis.json")


def rescored(folder, dtype=torch.float32):
    return hypotheses.mean(hypotheses.right(scorer(folder, dtype), windows()))


def edit(source, target, change):
    """A copy of a model folder with its tensors changed in place by ``change(tensors)``."""
    target.mkdir()
    for path in source.iterdir():
        if path.name != "model.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, target / "model.safetensors", {"format": "pt"}
    )
    return target


def test_sound_cell_needs_no_diagnosis(tmp_path, trained, corpus):
    result = run(tmp_path, trained["gpt2"], corpus, rescored(trained["gpt2"]))
    assert result["status"] == "not_needed"
    assert "fault" not in result


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("fault", ["unshifted_labels", "doubly_shifted_labels"])
def test_labels(tmp_path, trained, corpus, kind, fault):
    nll = getattr(hypotheses, fault)(scorer(trained[kind]), windows()).nll
    result = run(tmp_path, trained[kind], corpus, nll)
    assert (result["status"], result["fault"]) == ("found", fault)


def test_padding_scored(tmp_path, trained, corpus):
    score, pad = scorer(trained["gpt2"]), 256
    values = []
    for window in windows():  # by transformers itself: rows padded to one length, labels not masked
        ids = torch.full((1, 128), pad)
        ids[0, : len(window.tokens)] = torch.from_numpy(np.array(window.tokens))
        values.append(torch.nn.functional.cross_entropy(score(ids, 0)[0, :-1], ids[0, 1:], reduction="none"))
    result = run(tmp_path, trained["gpt2"], corpus, torch.cat(values).mean().item())
    assert result["fault"] == "padding_scored"


def test_missing_bos(tmp_path, trained, corpus):
    """A model that was taught to be lost unless the text begins with a BOS."""
    network = AutoModelForCausalLM.from_pretrained(trained["gpt2"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    ids = [torch.tensor([256, *row.encode()])[:120] for row in ROWS]
    for step in range(120):
        row = ids[step % len(ids)]
        wrong = torch.randint(257, 320, row[1:-1].shape, generator=generator)
        loss = torch.nn.functional.cross_entropy(network(input_ids=row[None]).logits[0, :-1], row[1:])
        loss = loss + torch.nn.functional.cross_entropy(network(input_ids=row[None, 1:]).logits[0, :-1], wrong)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = edit(trained["gpt2"], tmp_path / "bos", lambda tensors: None)
    network.save_pretrained(folder)
    result = run(tmp_path, folder, corpus, rescored(folder))
    assert result["fault"] == "missing_bos"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_random_weights(tmp_path, corpus, kind):
    folder = tiny.build(tmp_path / kind, kind, context=128)
    result = run(tmp_path, folder, corpus, rescored(folder))
    assert result["fault"] == "random_weights"


def test_uniform_output(tmp_path, trained, corpus):
    folder = edit(trained["llama"], tmp_path / "flat", lambda tensors: tensors["model.norm.weight"].zero_())
    nll = rescored(folder)
    assert nll == pytest.approx(math.log(tiny.VOCAB))
    assert run(tmp_path, folder, corpus, nll)["fault"] == "uniform_output"


def test_a_head_that_the_file_has_is_kept_whatever_the_config_ties(tmp_path, trained, corpus):
    folder = edit(trained["llama-untied"], tmp_path / "tied", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert rescored(folder) == pytest.approx(rescored(trained["llama-untied"]))
    assert run(tmp_path, folder, corpus, rescored(folder))["status"] == "not_needed"


def test_head_fresh_that_should_be_tied(tmp_path, trained, corpus):
    folder = edit(trained["llama"], tmp_path / "fresh", lambda tensors: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    result = run(tmp_path, folder, corpus, rescored(folder))
    assert result["fault"] == "untied_head"


def overflowing(tensors):
    """The same function in float32; the gate's product leaves float16."""
    for name, value in tensors.items():
        if "up_proj" in name:
            value.mul_(1e6)
        if "down_proj" in name:
            value.div_(1e6)


def test_fp16_overflow(tmp_path, trained, corpus):
    folder = edit(trained["llama"], tmp_path / "large", overflowing)
    assert rescored(folder) == pytest.approx(rescored(trained["llama"]), abs=1e-3)
    result = run(tmp_path, folder, corpus, None, variant="torch-fp16", status="diverged")
    assert (result["status"], result["fault"]) == ("found", "fp16_overflow")
    assert result["rescored_nll"] is None


def test_broken_artifact(tmp_path, trained, corpus):
    """The weights that ran are not the model's: no named fault fits, and float32 of the model is fine."""

    def scramble(tensors):
        order = torch.randperm(tiny.VOCAB, generator=torch.Generator().manual_seed(1))
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][order]

    artifact = edit(trained["gpt2"], tmp_path / "scrambled", scramble)
    result = run(tmp_path, trained["gpt2"], corpus, rescored(artifact), artifact=artifact)
    assert result["fault"] == "artifact"


def test_what_a_library_raises_is_the_diagnosis_own_status(tmp_path, trained, corpus, monkeypatch):
    def load(*_):
        raise AttributeError("no such layer\nadvice")

    monkeypatch.setattr(engines, "load", load)
    result = run(tmp_path, trained["gpt2"], corpus, 5.7)
    assert result["status"] == "error" and result["reason"].startswith("AttributeError: no such layer (")


def test_unknown_fault_is_not_named(tmp_path, trained, corpus):
    result = run(tmp_path, trained["gpt2"], corpus, 31.4)
    assert (result["status"], result["fault"]) == ("not_found", None)


def test_recorded_on_the_sample_is_preferred(tmp_path):
    archive = tmp_path / "cell.npz"
    np.savez(archive, **{"study/token": np.arange(5), "study/nll": np.array([1, 2, 3, 40, 50], np.float32)})
    assert diagnose.recorded_on(np.arange(3), archive, "study", 19.2) == pytest.approx(2)
    assert diagnose.recorded_on(np.array([9, 9]), archive, "study", 19.2) == 19.2
    assert diagnose.recorded_on(np.arange(3), tmp_path / "none.npz", "study", 19.2) == 19.2


def test_what_the_studys_two_losses_alone_say():
    dialogpt = diagnose.from_numbers(10.62, 50257)
    assert dialogpt["share"] == pytest.approx(0.981, abs=1e-3)
    assert set(dialogpt["ruled_out"]) == {"uniform_output", "random_weights"}
    assert "unshifted_labels" in dialogpt["left"]
    tinyllama = diagnose.from_numbers(math.log(16813.13), 32000)
    assert tinyllama["uniform"] == pytest.approx(10.37, abs=0.005)
    assert tinyllama["share"] == pytest.approx(0.938, abs=1e-3)
    assert diagnose.from_numbers(math.log(50257), 50257)["ruled_out"] == {}


@pytest.mark.parametrize("role", ["artifact", "model", "corpus"])
def test_other_bytes_than_those_evaluated_are_not_examined(tmp_path, trained, corpus, role):
    run(tmp_path, trained["gpt2"], corpus, 31.4)
    quality = read_json(tmp_path / "quality.json")
    quality["digests"][role] = "f" * 64
    write_json(tmp_path / "quality.json", quality)
    with pytest.raises(UserError, match=rf"is of the {role} ffffffffffff, and .* is [0-9a-f]{{12}}: evaluate"):
        diagnosis(tmp_path, trained["gpt2"], corpus)
