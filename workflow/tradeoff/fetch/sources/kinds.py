"""What kind of model a checkpoint is: its config, the class that runs it, its text part, whether it is quantized."""

import importlib.util
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch.sources.keys import say

# files in which quantizers wrote what they did before config.json had a place for it
QUANTIZED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
# the package, by import, that transformers reads a quantized checkpoint with
PACKAGES = {
    "aqlm": "aqlm",
    "auto-round": "auto_round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "eetq": "eetq",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "mxfp4": "kernels",
    "quanto": "optimum.quanto",
    "torchao": "torchao",
    "vptq": "vptq",
}
TRIED = 8  # tokens on which it is seen that none depends on a later one


def raw(folder: Path, what: str) -> dict:
    """config.json as it stands; UserError when it is no JSON object."""
    try:
        found = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"config.json of {what} is not JSON ({first_line(error)}): repair it") from error
    if not isinstance(found, dict):
        raise UserError(f"config.json of {what} is not a JSON object: repair it")
    return found


def read_config(folder: Path, what: str):
    """The transformers config in ``folder``; UserError unless transformers knows it without code of the model's own."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = raw(folder, what).get("model_type", "")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a library refuses a config in whatever way it likes
        if kind in CONFIG_MAPPING:
            raise UserError(
                f"config.json of {what} is no config of {kind} ({first_line(error)}): correct it"
            ) from error
        raise UserError(
            f"transformers does not know the model_type {kind!r} of {what} (a model's own code is never run): "
            "give a model of an architecture that transformers has"
        ) from error


def refuse_quantized(config: Mapping, names: Collection[str], what: str) -> None:
    """Raise UserError when config.json, or a quantizer's file among ``names``, says that the weights are quantized."""
    places = (config, config.get("text_config") or {})
    stated = next((found for part in places if (found := part.get("quantization_config"))), None)
    stated = stated or config.get("compression_config") or next((name for name in QUANTIZED if name in names), None)
    if not stated:
        return
    method = stated if isinstance(stated, str) else str(stated.get("quant_method", "bitsandbytes"))
    bits = "" if isinstance(stated, str) else stated.get("bits") or stated.get("w_bit") or ""
    package = PACKAGES.get(method)
    lacking = package and importlib.util.find_spec(package.partition(".")[0]) is None
    raise UserError(
        f"{what} is already quantized ({method}{f', {bits} bits' if bits else ''}"
        f"{f'; {package}, which reads it, is not installed' if lacking else ''}): the model of a study is what its "
        "variants quantize, so name the unquantized model there and this one as the `checkpoint` of a variant"
    )


def model_class(config, what: str):
    """The class of transformers that runs ``config`` as a causal LM; UserError when it is another kind of model.

    Of a multimodal config, the class of its text part.
    """
    import inspect

    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    part = architecture.text(config)
    known = None if config.is_encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING.get(type(part), None)
    name = (config.architectures or [known.__name__ if known else config.model_type])[0]
    if known is None or not (part is not config or is_causal(name, known.__name__)):
        raise UserError(f"{what} is a {name}, not a causal language model: give one that generates text")
    if getattr(known, "_is_stateful", False) or "cache" not in inspect.signature(known.forward).parameters:
        raise UserError(
            f"{what} is a {name}, which keeps a state of its own kind and not keys and values alone: "
            "no engine here runs it, give a model of attention layers"
        )
    return known


def is_causal(name: str, known: str) -> bool:
    """Whether a class named in a config is a causal LM: ``known``, or what an old checkpoint calls such a class."""
    return name.lower() == known.lower() or name.lower().endswith(("forcausallm", "lmheadmodel"))


def refuse_foresight(model, what: str) -> None:
    """Raise UserError when a token's logits depend on a later token, as an encoder's do: a loss would mean nothing."""
    import torch

    size, length = architecture.vocabulary(model.config), min(TRIED, architecture.longest(model.config))
    ids = (torch.arange(length).repeat(2, 1) * 7919 + 1) % size
    ids[1, -1] = (ids[1, -1] + size // 2) % size
    try:
        with torch.inference_mode():
            first, second = model.eval()(input_ids=ids, use_cache=False).logits[:, :-1].float()
    except Exception as error:  # what a CPU cannot do, a GPU may
        say(f"{what}: whether it looks ahead is not known here ({first_line(error)})")
        return
    # the same sums in another order, and no more
    allowed = max(1e-4, 4 * torch.finfo(model.dtype).eps) * first.abs().max()
    if ((first - second).abs() > allowed).any():
        raise UserError(
            f"{what} gives a token's logits with later tokens in view (an encoder, or is_decoder is false): "
            "give a causal language model"
        )


def whole_class(config, what: str):
    """The class of a multimodal checkpoint: the one that its config names, or that transformers has for its type."""
    import transformers

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    found = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if found is None:
        raise UserError(f"{what} is a {config.model_type} whose text part cannot be told: give a text model")
    return found


def text_state(whole, causal, part) -> dict:
    """The weights of the text model ``causal`` of config ``part`` within a multimodal model, by that model's own names.

    Sets whether the head is tied as it is in ``whole``. Raises LookupError when the text model is not found.
    """
    import torch
    from transformers import PreTrainedModel

    with torch.device("meta"):
        own = causal(part)
    child, body = next((name, part) for name, part in own.named_children() if isinstance(part, PreTrainedModel))
    inner = next((module for module in whole.modules() if type(module) is type(body)), None)
    head, table = whole.get_output_embeddings(), whole.get_input_embeddings()
    if inner is None or head is None:
        raise LookupError(f"no {type(body).__name__} with a head in {type(whole).__name__}")
    part.tie_word_embeddings = head.weight is table.weight
    state = {f"{child}.{name}": tensor for name, tensor in inner.state_dict().items()}
    name = next(name for name, module in own.named_modules() if module is own.get_output_embeddings())
    return state | {f"{name}.{key}": tensor for key, tensor in head.state_dict().items()}
