"""What vLLM holds and runs, read off its loaded model: weights by type, matrices by bits, the cache's blocks."""

from collections import Counter

from torch import Tensor, nn

from workflow.tradeoff.engines import matrices
from workflow.tradeoff.engines.matrices import Matrix
from workflow.tradeoff.variants import Variant

HEAD = "lm_head"
# of a quantized layer: no matrix of its own, whatever its shape
BESIDE = ("scale", "zero", "g_idx", "bias")


def model_proof(network: nn.Module, variant: Variant) -> dict:
    """The counts of ``Engine.proof``. A compiled step cannot be traced: by the layers' own sizes, tied weights once.

    Tables of which a token reads a row are unread: what has ``num_embeddings`` and is not the head too. Tables of
    sines are no weights. The head counts the rows of the vocabulary, without those that vLLM pads it with.
    """
    weight_bytes: Counter = Counter()
    parameters: Counter = Counter()
    seen = set()
    for tensor in network.parameters():
        if (key := matrices.identity(tensor)) not in seen and tensor.numel():
            seen.add(key)
            name = str(tensor.dtype).removeprefix("torch.")
            weight_bytes[name] += tensor.nbytes
            parameters[f"{name}@{tensor.device.type}"] += tensor.numel()
    head = getattr(getattr(network, HEAD, None), "weight", None)
    found, unread = [], 0
    for place, module in network.named_modules():
        own = [(name, part) for name, part in module.named_parameters(recurse=False) if part.numel()]
        if hasattr(module, "num_embeddings"):
            table = next((part for name, part in own if name == "weight"), None)
            is_head = head is not None and table is not None and matrices.identity(table) == matrices.identity(head)
            if not is_head:
                unread += sum(part.nbytes - part.nbytes // part.shape[0] for _, part in own)
        elif own:
            found += _matrices(place, module, own)
    if head is not None:
        found.append(_head(getattr(network, HEAD), head))
    return {
        "weight_bytes": dict(weight_bytes),
        "parameters": dict(parameters),
        "unread_bytes": unread,
        "kernels": kernels(network),
        **matrices.counted(found, variant),
    }


def _matrices(place: str, module: nn.Module, own: list[tuple[str, Tensor]]) -> list[Matrix]:
    """A linear layer by its features, however it is packed; of another layer, every parameter of two dimensions."""
    sizes = [getattr(module, f"{side}_size_per_partition", None) for side in ("input", "output")]
    if None not in sizes:
        count = sizes[0] * sizes[1]
        return [Matrix(place, count, round(8 * max(part.nbytes for _, part in own) / count))]
    return [
        Matrix(f"{place}.{name}".removesuffix(".weight"), *matrices.stored(part))
        for name, part in own
        if part.ndim >= 2 and not any(word in name for word in BESIDE)
    ]


def kernels(network: nn.Module) -> list[str]:
    """Names of the kernels that multiply by packed matrices; empty where there are none."""
    found = (getattr(getattr(module, "quant_method", None), "kernel", None) for module in network.modules())
    return sorted({type(kernel).__name__ for kernel in found if kernel is not None})


def _head(module: nn.Module, weight: Tensor) -> Matrix:
    rows = getattr(module, "org_vocab_size", weight.shape[0])
    return Matrix(HEAD, rows * weight.numel() // weight.shape[0], 8 * weight.element_size())


def cache_of(config, length: int) -> int:
    """Bytes of the blocks that one sequence of ``length`` tokens takes. config: vLLM's KVCacheConfig."""
    total = 0
    for group in config.kv_cache_groups:
        spec = group.kv_cache_spec
        # a group of layers of several sizes says the bytes of all of them at once
        layers = 1 if hasattr(spec, "kv_cache_specs") else len(group.layer_names)
        total += layers * -(-length // spec.block_size) * spec.page_size_bytes
    return total


def cache_type(config) -> str:
    """Type of keys and values by the bytes of one number: ``fp8``, or torch's own name. config: as in ``cache_of``."""
    types = {group.kv_cache_spec.dtype for group in config.kv_cache_groups if hasattr(group.kv_cache_spec, "dtype")}
    # vLLM keeps E4M3 numbers in tensors of bytes
    return ", ".join(sorted("fp8" if kind.itemsize == 1 else str(kind).removeprefix("torch.") for kind in types))


def launch(compilation) -> dict:
    """Whether a step is compiled and replayed as a CUDA graph. compilation: vLLM's CompilationConfig."""
    graphs, mode = compilation.cudagraph_mode.name, compilation.mode.name
    graph, compiled = graphs != "NONE", mode != "NONE"
    words = f"CUDA graphs ({graphs.lower()})" if graph else "eager, no CUDA graph"
    words += ", compiled" if compiled else ", not compiled"
    return {"cuda_graph": graph, "compiled": compiled, "cudagraph_mode": graphs, "mode": mode, "words": words}
