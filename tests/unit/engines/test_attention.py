"""The attention that runs is the model's own, and leaves nothing out of what the model states."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests import tiny
from workflow.tradeoff.engines import attention, hf
from workflow.tradeoff.variants import VARIANTS

IDS = torch.arange(48)[None] * 37 % tiny.VOCAB
OLD = ("gptj", "gptneo", "codegen", "xglm")


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


@pytest.mark.parametrize("kind", OLD)
def test_old_families_run_with_what_they_have(tmp_path, kind):
    engine = load(tiny.build(tmp_path / kind, kind))
    assert engine.generate(IDS[:, :8], 4).shape == (1, 12)
    token = engine.prefill(IDS)
    assert engine.decode(token).shape == (1, 1) and engine.proof()["attention"] in ("eager", "sdpa")
    eager = AutoModelForCausalLM.from_pretrained(tmp_path / kind, attn_implementation="eager").eval()
    torch.testing.assert_close(engine.score(IDS), eager(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "stated"),
    [("gemma2", {}), ("gpt2", {"scale_attn_by_inverse_layer_idx": True}), ("gpt2", {"scale_attn_weights": False})],
)
def test_what_a_model_states_is_never_left_out(tmp_path, kind, stated):
    """A soft cap, a scale of its own: eager is the reference."""
    config = states(tiny.config(kind), **stated)
    folder = sharpened(tiny.build(tmp_path / kind, kind, settings=config))
    engine = load(folder)
    right = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()(IDS).logits
    # float32 sums in another order differ by some 1e-6; what is left out moves logits by more than 0.01
    torch.testing.assert_close(engine.score(IDS), right, atol=1e-5, rtol=0)


def test_a_function_that_does_not_know_a_soft_cap_is_found_out(tmp_path):
    """Planted: SDPA as it was, passing the cap over in silence; that of transformers 5 refuses one."""
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def planted(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **stated):
        stated.pop("softcap", None)
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **stated)

    folder = sharpened(tiny.build(tmp_path / "gemma2", "gemma2"))
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    right = network(IDS).logits
    ALL_ATTENTION_FUNCTIONS["planted"] = planted
    network.config._attn_implementation = "planted"
    assert (network(IDS).logits - right).abs().max() > 1e-2
    assert attention.settle(network) == "softcap" and network.config._attn_implementation == "eager"
    torch.testing.assert_close(network(IDS).logits, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "granitemoe", "falcon", "bigcode", "starcoder2"])
def test_sdpa_stays_where_it_leaves_nothing_out(tmp_path, kind):
    engine = load(tiny.build(tmp_path / kind, kind))
    proof = engine.proof()
    assert (proof["attention"], proof["attention_left_out"]) == ("sdpa", "")
    eager = AutoModelForCausalLM.from_pretrained(tmp_path / kind, attn_implementation="eager").eval()
    torch.testing.assert_close(engine.score(IDS), eager(IDS).logits, atol=1e-5, rtol=0)
