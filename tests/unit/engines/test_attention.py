"""The attention that runs is the model's own, and leaves nothing out of what the model states."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from workflow.tradeoff.engines import hf
from workflow.tradeoff.variants import VARIANTS

IDS = torch.arange(48)[None] * 37 % tiny.VOCAB
EAGER_ALONE = ("gptj", "gptneo", "codegen", "xglm")


def states(config, **values):
    for name, value in values.items():
        setattr(config, name, value)
    return config


def load(folder):
    return hf.load(VARIANTS["torch-fp32"], folder, folder, "cpu", 1)


def sharpened(folder, factor=8.0):
    """The model with larger projections, as training makes them: a cap or a scale of scores is then plain to see."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    for name, weight in network.named_parameters():
        if "_proj" in name or "c_attn" in name:
            weight.data *= factor
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", EAGER_ALONE)
def test_models_without_sdpa_run_as_they_are(tmp_path, kind):
    engine = load(tiny.build(tmp_path / kind, kind))
    assert engine.generate(IDS[:, :8], 4).shape == (1, 12)
    token = engine.prefill(IDS)
    assert engine.decode(token).shape == (1, 1) and engine.proof()["attention"] == "eager"


@pytest.mark.parametrize(
    ("kind", "stated", "named"),
    [
        ("gemma2", {}, "softcap"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "a scale of its scores"),
        ("gpt2", {"scale_attn_weights": False}, "a scale of its scores"),
    ],
)
def test_what_sdpa_leaves_out_is_run_by_eager(tmp_path, kind, stated, named):
    config = states(tiny.config(kind), **stated)
    folder = sharpened(tiny.build(tmp_path / kind, kind, settings=config))
    engine = load(folder)
    proof = engine.proof()
    assert (proof["attention"], proof["attention_left_out"]) == ("eager", named)
    right, wrong = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kind).eval()(IDS).logits
        for kind in ("eager", "sdpa")
    )
    # float32 sums in another order differ by some 1e-6; what is left out moves logits by more than 0.01
    torch.testing.assert_close(engine.score(IDS), right, atol=1e-5, rtol=0)
    assert (wrong - right).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["gpt2", "llama", "granitemoe", "falcon", "bigcode", "starcoder2"])
def test_sdpa_stays_where_it_leaves_nothing_out(tmp_path, kind):
    engine = load(tiny.build(tmp_path / kind, kind))
    proof = engine.proof()
    assert (proof["attention"], proof["attention_left_out"]) == ("sdpa", "")
    eager = AutoModelForCausalLM.from_pretrained(tmp_path / kind, attn_implementation="eager").eval()
    torch.testing.assert_close(engine.score(IDS), eager(IDS).logits, atol=1e-5, rtol=0)


def test_a_soft_cap_that_is_not_set_costs_no_sdpa(tmp_path):
    config = states(tiny.config("gemma2"), attn_logit_softcapping=None)
    assert load(tiny.build(tmp_path / "gemma2", "gemma2", settings=config)).proof()["attention"] == "sdpa"
