"""What a torch model's step multiplies by and reads: counted over its tensors, and seen in one traced step."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workflow.tradeoff.variants import Variant

# a weight that only these touch is looked up, added or scaled by: no matrix of a product
ELEMENTWISE = {"embedding", "add", "add_", "sub", "mul", "mul_", "div", "neg", "exp", "pow", "sigmoid", "softplus"}
PICKS = {"embedding", "index", "index_select", "gather"}  # read what they give out, not the whole table


def stored(tensor: Tensor) -> tuple[int, int]:
    """Number of weights that a tensor stands for, and the bits that each is stored in, whatever packs them."""
    state = getattr(tensor, "quant_state", None)
    count = prod(state.shape) if state is not None else tensor.numel()
    return count, round(8 * max((part.nbytes for part in parts(tensor)), default=0) / max(count, 1))


def parts(tensor: Tensor) -> Iterable[Tensor]:
    """The plain tensors that hold a tensor's numbers: itself, or what a quantized subclass is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from parts(getattr(tensor, name))


class Matrix(NamedTuple):
    """A matrix that a step multiplies by: number of weights, bits that each is stored in."""

    name: str
    weights: int
    bits: int


def products(network: nn.Module, seen: "Step") -> list[Matrix]:
    """Every matrix that a step multiplies by.

    All parameters of two dimensions and more, so that experts in one 3-D tensor, fused projections and Conv1D count;
    not embeddings, of which a step reads a row (a tied one counts as the head). Layers that keep packed integers in
    buffers instead of a weight count by their features. One that is shared counts once. seen: a traced step, which
    tells tables that it only adds or scales by.
    """
    found, counted = [], set()
    for place, module in network.named_modules():
        own = [] if isinstance(module, nn.Embedding) else module.named_parameters(recurse=False)
        matrices = [(name, tensor) for name, tensor in own if tensor.ndim >= 2 and not seen.looked_up(tensor)]
        for name, tensor in matrices:
            if (key := identity(tensor)) not in counted:
                counted.add(key)
                found.append(Matrix(f"{place}.{name}".strip(".").removesuffix(".weight"), *stored(tensor)))
        if not matrices and (packed := _packed(module)):
            found.append(Matrix(place, *packed))
    return found


def counted(found: Sequence[Matrix], variant: Variant) -> dict:
    """What ``Engine.proof`` says of an engine's matrices; a published variant says its own bits."""
    by_bits: Counter = Counter()
    for matrix in found:
        by_bits[str(matrix.bits)] += matrix.weights
    total = sum(by_bits.values())
    quantized = sum(size for bits, size in by_bits.items() if variant.stored_in(int(bits)))
    left = [matrix for matrix in found if variant.quantized and not variant.stored_in(matrix.bits)]
    return {
        "linear_weights": total,
        "linear_quantized": quantized,
        "quantized_fraction": quantized / total,
        "weights_by_bits": dict(by_bits),
        "left_unquantized": gathered(left),
    }


def gathered(found: Iterable[Matrix]) -> dict[str, int]:
    """Numbers of weights by name, a ``*`` for the number of a layer, the largest first."""
    sizes: Counter = Counter()
    for matrix in found:
        sizes[re.sub(r"\b\d+\b", "*", matrix.name)] += matrix.weights
    return dict(sizes.most_common())


def _packed(module: nn.Module) -> tuple[int, int] | None:
    """Weights and bits of a layer whose matrix lies in integer buffers, as GPTQ's, AWQ's and AutoRound's."""
    features = [getattr(module, f"{side}_features", getattr(module, f"{side}features", None)) for side in ("in", "out")]
    integers = [buffer.nbytes for buffer in module.buffers(recurse=False) if not buffer.dtype.is_floating_point]
    if None in features or not integers:
        return None
    return prod(features), round(8 * max(integers) / prod(features))


def identity(tensor: Tensor) -> int:
    """What two names of one tensor share: the address of its memory."""
    return next(iter(parts(tensor))).untyped_storage().data_ptr()


class Step(TorchDispatchMode):
    """Watches a step: which weights its operations touch, how, and how many bytes of each they read.

    tensors: every weight in memory. A view reads nothing; what it is handed to does, and if its other input is empty
    (an expert without tokens), nothing is read either.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        self.sizes = {identity(tensor): sum(part.nbytes for part in parts(tensor)) for tensor in tensors}
        self.regions: dict[int, dict[tuple, int]] = {}
        self.operations: dict[int, set[str]] = {}

    def __torch_dispatch__(self, func: Callable, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        out = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        views = {identity(tensor) for tensor in out}
        weights = [tensor for tensor in given if (key := identity(tensor)) in self.sizes and key not in views]
        if not weights or any(tensor.numel() == 0 for tensor in (*given, *out)):
            return result
        name = func.__name__.split(".")[0]
        for tensor in weights:
            key = identity(tensor)
            size = sum(part.nbytes for part in parts(tensor))
            region = () if hasattr(tensor, "__tensor_flatten__") else (tensor.storage_offset(), tensor.numel())
            if name in PICKS:
                size, region = min(size, sum(part.nbytes for part in out)), (*region, name)
            elif name == "_grouped_mm" and tensor.ndim == 3:
                size = size * _groups(kwargs, args) // tensor.shape[0]
            self.operations.setdefault(key, set()).add(name)
            self.regions.setdefault(key, {})[region] = size
        return result

    def read(self) -> int:
        """Bytes of all weights that the step read."""
        return sum(min(sum(found.values()), self.sizes[key]) for key, found in self.regions.items())

    def looked_up(self, tensor: Tensor) -> bool:
        """Whether the step touched a weight without multiplying matrices by it."""
        found = self.operations.get(identity(tensor))
        return bool(found) and found <= ELEMENTWISE


def watch(network: nn.Module, tensors: Iterable[Tensor], step: Callable[[], object]) -> Step:
    """Run a step and return what was seen of it.

    A layer that ran without an operation on its weights (a library's own kernel, called past torch) read them whole.
    """
    ran = set()
    layers = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [layer.register_forward_pre_hook(lambda layer, _: ran.add(layer)) for layer in layers]
    try:
        with Step(tensors) as seen:
            step()
    finally:
        for hook in hooks:
            hook.remove()
    for layer in ran:
        held = [*layer.parameters(recurse=False), *(layer.buffers(recurse=False) if _packed(layer) else ())]
        for tensor in held:
            if (key := identity(tensor)) not in seen.regions and key in seen.sizes:
                seen.regions[key] = {(): seen.sizes[key]}
    return seen


def _groups(kwargs, args) -> int:
    """How many experts of a grouped product have tokens: their ends are the offsets."""
    ends = (kwargs or {}).get("offs", args[2] if len(args) > 2 else None)
    return len(set(ends.tolist()) - {0})
