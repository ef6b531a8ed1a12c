"""A model of any architecture with seeded random weights: for speed and memory, never for accuracy."""

from pathlib import Path

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch.sources import byte_tokenizer, checkpoint, generation


def config_of(stated: dict):
    """The transformers config of ``stated`` (``model_type`` and its settings); UserError when it is not one."""
    from transformers import CONFIG_MAPPING, AutoConfig

    settings = dict(stated)
    kind = settings.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise UserError(f"model_type {kind!r} in `architecture` is not one that transformers knows: correct it")
    try:
        config = AutoConfig.for_model(kind, **settings)
    except Exception as error:  # a library refuses a config in whatever way it likes
        raise UserError(f"`architecture` is no config of {kind} ({first_line(error)}): correct it") from error
    # what a config does not know it keeps as it is, and what an earlier transformers knew it takes under today's name
    known = {*type(config)().to_dict(), *config.attribute_map}
    unknown = sorted(name for name in settings if name not in known and name in vars(config))
    if unknown:
        raise UserError(f"`architecture` has {', '.join(unknown)}, which a {kind} config does not know: remove it")
    return config


def build(config, folder: Path, *, seed: int, dtype: str) -> None:
    """Write the model of ``config`` with weights drawn from ``seed``, and the byte-level tokenizer, into ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM

    config.bos_token_id = config.eos_token_id = config.pad_token_id = byte_tokenizer.SIZE - 1
    byte_tokenizer.save(folder, vocab_size=architecture.vocabulary(config), context=architecture.longest(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # drawn in float32, where torch is several times as fast as in float16
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    checkpoint.save(model.to(getattr(torch, dtype)), folder, "the random model")
    generation.neutral(None, folder, config.to_dict(), "the random model")
