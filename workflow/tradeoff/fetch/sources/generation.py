"""A checkpoint's own generation settings: they have no place in a measurement, and are left out by name."""

import json
from collections.abc import Mapping
from pathlib import Path

from workflow.tradeoff.fetch.sources.keys import say

NAME = "generation_config.json"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# what such a file says beside settings
NO_SETTING = {*TOKENS, "transformers_version", "_from_model_config"}


# what greedy decoding is without any setting; of all others, nothing or False
PLAIN = {
    "use_cache": True, "max_length": 20, "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0, "length_penalty": 1.0, "diversity_penalty": 0.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "min_length": 0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip


# what a config says of the way in which a library runs a model: not of what it computes
RUNNING = {
    "return_dict": True, "torchscript": False, "output_past": True,
    "attn_implementation": None, "_attn_implementation": None, "_attn_implementation_internal": None,
}  # fmt: skip


def is_setting(key: str, value) -> bool:
    """Whether a key of generation says something that greedy decoding would not do by itself."""
    return key not in NO_SETTING and value is not None and value != PLAIN.get(key, False)


def in_config(config: Mapping) -> dict:
    """Settings of generation, and of how a library runs a model, in ``config``, config.json as it stands."""
    from transformers import GenerationConfig

    known = GenerationConfig().to_dict()
    found = {key: value for key, value in config.items() if key in known and is_setting(key, value)}
    return found | {key: value for key, value in config.items() if key in RUNNING and value != RUNNING[key]}


def without(config: Mapping) -> dict:
    """``config`` without these settings."""
    settings = in_config(config)
    return {key: value for key, value in config.items() if key not in settings}


def stated(source: Path, config: Mapping) -> tuple[dict, dict]:
    """Settings of generation in ``source``, and ids of special tokens."""
    own = {}
    if (source / NAME).is_file():
        try:
            own = json.loads((source / NAME).read_text())
        except ValueError:
            own = {"unreadable": NAME}
    settings = {key: value for key, value in own.items() if is_setting(key, value)}
    tokens = {key: own.get(key, config.get(key)) for key in TOKENS}
    return settings | in_config(config), {key: value for key, value in tokens.items() if is_ids(value)}


def is_ids(value) -> bool:
    return isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value))


def neutral(source: Path | None, target: Path, config: Mapping, what: str) -> dict:
    """Write the plain generation_config.json into ``target``, special tokens alone; the settings that were left out."""
    settings, tokens = stated(source, config) if source else ({}, {})
    if settings:
        say(f"{what}: its generation settings are left out: {', '.join(sorted(settings))}")
    (target / NAME).write_text(json.dumps(tokens, indent=1) + "\n")
    return settings


def plain(model) -> None:
    """Give a loaded ``model`` the library's default settings, as saving refuses others that do not fit each other."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
