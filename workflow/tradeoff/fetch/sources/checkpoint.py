"""Folders of transformers: which files count, whether they hold a causal LM, and how they become safetensors."""

import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError

CONFIGS = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def one_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def weights(names: Iterable[str]) -> list[str]:
    """The weight files among the ``names`` of a folder: safetensors, else PyTorch's .bin; [] when there are none."""
    names = set(names)
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if f"{stem}.{suffix}" in names:
            return [f"{stem}.{suffix}"]
        if f"{stem}.{suffix}.index.json" in names:
            shards = sorted(name for name in names if name.startswith(f"{stem}-") and name.endswith(f".{suffix}"))
            return [f"{stem}.{suffix}.index.json", *shards]
    return []


def wanted(names: Iterable[str], what: str) -> list[str]:
    """The files of a model among ``names``: configs, tokenizer, weights; UserError when one kind is missing."""
    names = set(names)
    chosen = weights(names)
    if "config.json" not in names:
        raise UserError(f"{what} has no config.json, so it is no transformers model: give another source")
    if not chosen:
        raise UserError(f"{what} has no model.safetensors and no pytorch_model.bin: give a source with weights")
    if not names & {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"}:
        raise UserError(f"{what} has no tokenizer files (tokenizer.json): put the model's tokenizer beside its weights")
    return [name for name in (*CONFIGS, *TOKENIZER) if name in names] + chosen


def read_config(folder: Path, what: str):
    """The transformers config in ``folder``; UserError unless transformers knows it without code of the model's own."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        kind = ""
        if (folder / "config.json").is_file():
            try:
                kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
            except ValueError:
                raise UserError(f"config.json of {what} is not JSON: repair it") from error
        raise UserError(
            f"transformers does not know the model_type {kind!r} of {what} (a model's own code is never run): "
            "give a model of an architecture that transformers has"
        ) from error


def model_class(config, what: str):
    """The class of transformers that runs ``config`` as a causal LM; UserError when it is another kind of model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    names = [known.__name__] if known else []
    architecture = (config.architectures or names or [config.model_type])[0]
    if known is None or config.is_encoder_decoder or (config.architectures and architecture not in names):
        raise UserError(f"{what} is a {architecture}, not a causal language model: give one that generates text")
    return known


def read_weights(paths: Iterable[Path], what: str) -> dict:
    """The tensors of weight files, by name, mapped from the disk where the format allows it; UserError when damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = {}
    for path in paths:
        try:
            state |= load_file(path) if path.suffix == ".safetensors" else unpickle(path)
        except (SafetensorError, OSError, RuntimeError, EOFError) as error:
            raise UserError(
                f"{path.name} of {what} cannot be read ({one_line(error)}): fetch or copy it again"
            ) from error
    return state


def unpickle(path: Path) -> Mapping:
    """The tensors of a PyTorch .bin, nothing else: what would need code to be opened is a UserError."""
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path.name} holds more than tensors, and opening it could run code: "
            "give a source with safetensors, or a .bin that torch.load reads with weights_only=True"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path.name} is not a model's state dict of tensors: give a source with safetensors")
    return state


def dtype_of(state: Mapping) -> str:
    """The floating dtype that holds most numbers of ``state``, in torch's words."""
    counts = Counter()
    for tensor in state.values():
        if tensor.is_floating_point():
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else "float32"


def adopt(source: Path, target: Path, *, dtype: str, what: str) -> str:
    """Bring the model of folder ``source`` into folder ``target`` as safetensors in ``dtype``, and return the dtype.

    dtype: float32, float16, bfloat16, or auto: the one of the source. Safetensors that have it already are copied
    byte for byte; else transformers saves what it read, which handles tied weights and names of old versions.
    Raises UserError when the model is not a causal LM, weights are missing, or a .bin needs more than ``weights_only``.
    """
    import torch

    present = {path.name for path in source.iterdir()}
    if "config.json" in present:
        # a model of another kind is told so before anything that it may lack
        config = read_config(source, what)
        causal = model_class(config, what)
    names = wanted(present, what)
    found = [source / name for name in names if name.endswith((".safetensors", ".bin"))]
    state = read_weights(found, what)
    stored = dtype_of(state)
    dtype = stored if dtype == "auto" else dtype
    # read even when it is only copied: a model with missing weights would run with random ones
    model = complete(causal, config, state, getattr(torch, dtype), what)
    if dtype == stored and found[0].suffix == ".safetensors":
        for name in names:
            copy(source / name, target / name)
        return dtype
    files.check_disk(target, 2**20 + sum(tensor.nbytes for tensor in model.parameters()), what)
    model.save_pretrained(target)
    for name in names:
        if name in TOKENIZER or name == "generation_config.json":
            copy(source / name, target / name)
    return dtype


def complete(causal, config, state: Mapping, dtype, what: str):
    """The model of ``config`` with the weights ``state``; UserError when one is missing or has another shape."""
    try:
        model, report = causal.from_pretrained(
            None, config=config, state_dict=dict(state), dtype=dtype, output_loading_info=True
        )
    except RuntimeError as error:
        raise UserError(
            f"the weights of {what} do not fit its config.json ({one_line(error)}): check the source"
        ) from error
    refuse_missing(report, what)
    return model


def refuse_missing(report: Mapping, what: str) -> None:
    """Raise UserError when transformers' loading ``report`` names weights that are missing or of another shape."""
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"the weights of {what} lack {wrong[0]}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + ", which its config.json asks for: the checkpoint is not whole, fetch or copy it again"
        )


def copy(source: Path, target: Path) -> None:
    """Copy a file's content, with a bar when it is large."""
    from tqdm import tqdm

    size = source.stat().st_size
    with (
        open(source, "rb") as reader,
        open(target, "wb") as writer,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"copy {source.name}", disable=size < 16 * files.CHUNK) as bar,
    ):
        while chunk := reader.read(files.CHUNK):
            writer.write(chunk)
            bar.update(len(chunk))
