"""The weight files of a checkpoint: its one file, or those that its index names; never what merely lies beside."""

import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from workflow.tradeoff.errors import UserError, first_line

# in the order in which transformers looks for them
SINGLE = ("model.safetensors", "pytorch_model.bin")
# what quantizers of other programs call their tensors
PACKED = (".qweight", ".qzeros", ".weight_packed", ".absmax", ".SCB", ".weight_scale", ".weight_scale_inv")


def entry(names: Collection[str]) -> str | None:
    """The file among ``names`` that says what the weights are: the one file, or the index of several; None for none."""
    for name in SINGLE:
        for found in (name, f"{name}.index.json"):
            if found in names:
                return found
    return None


def shards(index: Path, what: str) -> dict[str, set[str]]:
    """{file: names of the tensors in it}, as an index says; UserError when it is none."""
    try:
        placed = json.loads(index.read_text())["weight_map"]
        files: dict[str, set[str]] = {}
        for tensor, file in placed.items():
            files.setdefault(file, set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index.name} of {what} is no index of weights ({first_line(error)}): copy it again"
        ) from error
    suffix = PurePosixPath(index.name.removesuffix(".index.json")).suffix
    for file in files:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or path.suffix != suffix:
            raise UserError(f"{index.name} of {what} names {file!r}, which is no file of this checkpoint: correct it")
    if not files:
        raise UserError(f"{index.name} of {what} names no weights: copy it again")
    return dict(sorted(files.items()))


def places(folder: Path, what: str) -> dict[str, set[str] | None]:
    """{file: names of its tensors, None for all} of the checkpoint in ``folder``; UserError when it lacks one."""
    first = entry({path.name for path in folder.iterdir()})
    if first is None:
        return {}
    if not first.endswith(".index.json"):
        return {first: None}
    found = shards(folder / first, what)
    refuse_absent(found, {file for file in found if (folder / file).is_file()}, first, what)
    return dict(found)


def refuse_absent(named: Iterable[str], present: Collection[str], index: str, what: str) -> None:
    """Raise UserError when a file that ``index`` names is not among those ``present``."""
    if missing := [file for file in named if file not in present]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{what} has no {missing[0]}{more}, which {index} names: the checkpoint is not whole, fetch it again"
        )


def beside(folder: Path, read: Collection[str]) -> list[str]:
    """What lies in ``folder`` and is not read: an adapter, and safetensors that no index names."""
    names = sorted(path.name for path in folder.iterdir())
    stray = [name for name in names if name.endswith(".safetensors") and name not in read]
    return sorted({*stray, *(name for name in names if name.startswith("adapter_"))})


def read(folder: Path, placed: Mapping[str, set[str] | None], what: str) -> tuple[dict, bool]:
    """The tensors of weight files, mapped from the disk where the format allows it, and whether files held others too.

    Raises UserError when a file is damaged, or lacks a tensor that the index places in it.
    """
    from safetensors.torch import load_file

    state, others = {}, False
    for file, names in placed.items():
        path = folder / file
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else unpickle(path)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{file} of {what} cannot be read ({first_line(error)}): fetch or copy it again") from error
        if names is not None:
            if absent := sorted(names - set(tensors)):
                raise UserError(
                    f"{file} of {what} lacks {absent[0]}, which the index places there: fetch or copy both again"
                )
            others |= len(names) < len(tensors)
            tensors = {name: tensors[name] for name in names}
        state |= tensors
    return state, others


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


def refuse_packed(state: Mapping, what: str) -> None:
    """Raise UserError for weights that are not numbers as they stand: packed integers, or floats that need scales."""
    for name, tensor in state.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        packed = name.endswith(PACKED) or (name.endswith(".weight") and not tensor.is_floating_point())
        if packed or (tensor.is_floating_point() and tensor.element_size() < 2):
            raise UserError(
                f"{what} stores {name} in {dtype}, and no quantization_config says how it is read: "
                "give the model in float32, float16 or bfloat16"
            )
