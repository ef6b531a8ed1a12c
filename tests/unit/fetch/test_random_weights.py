"""Architectures of models with random weights: what a config knows by any of its names, and what it does not."""

from pathlib import Path

import pytest
import yaml

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch.sources import random_weights

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
STUDIES = Path(__file__).parents[3] / "config"
DRAWN = {
    name: model["architecture"]
    for path in sorted(STUDIES.glob("*.yaml"))
    for name, model in yaml.safe_load(path.read_text()).get("models", {}).items()
    if model.get("source") == "random"
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_architecture_of_ours_is_a_config(name):
    config = random_weights.config_of(DRAWN[name])
    stated = DRAWN[name].get("rope_scaling", {}) | {"rope_theta": DRAWN[name].get("rope_theta")}
    if stated["rope_theta"]:
        assert config.rope_parameters.items() >= stated.items()


def test_rotary_positions_by_the_names_of_transformers_4():
    scaling = {"rope_type": "linear", "factor": 2.0}
    config = random_weights.config_of({**LLAMA, "rope_theta": 5e5, "rope_scaling": scaling})
    assert config.rope_parameters == {**scaling, "rope_theta": 5e5}


def test_a_word_that_no_config_knows():
    with pytest.raises(UserError, match="`architecture` has hiden_size, which a llama config does not know: remove it"):
        random_weights.config_of({**LLAMA, "hiden_size": 1})
