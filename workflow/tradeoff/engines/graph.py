"""The fast path on a GPU: static KV cache, one decode step compiled and replayed as a CUDA graph.

A replay launches the whole step at once, so that a token costs the device's time and not Python's. Tokens, the
position and the cache stay at fixed addresses on the device: between two steps nothing crosses.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from workflow.tradeoff import architecture
from workflow.tradeoff.engines import decoder, hf, linear
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant

CAPACITY = 256  # tokens that the cache starts with: it is read whole at each step, so it grows only when it must
WEIGHT_ONLY = {8: linear.quantize_int8, 4: linear.quantize_int4}
# a piece is one or two kernels: compiling it here is quicker than starting torch's compile workers
COMPILE = {"compile_threads": 1}


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "GraphEngine":
    torch.set_num_threads(threads)
    engine = GraphEngine(variant, artifact, device)
    engine.reserve(CAPACITY)
    return engine


class GraphEngine:
    """GPT-2 or Llama with a static cache. On the CPU (tests) the step runs as it is, neither compiled nor captured."""

    one_at_a_time = "the reference decodes one sequence: its step has one position for all"

    def __init__(self, variant: Variant, artifact: Path, device: str):
        self.variant = variant
        self.device = torch.device(device)
        # weight-only variants start from the float16 weights, bitsandbytes ones from its own loader
        weight_only = variant.quantizer == "weight-only"
        plain = {"quantizer": "none", "dtype": "float16" if device == "cuda" else "float32"}
        source = replace(variant, recipe=plain) if weight_only else variant
        network = hf.load_model(source, artifact, device, as_stored=True)
        self.config = network.config
        self.context = architecture.longest(network.config)
        convert = WEIGHT_ONLY[variant.bits] if weight_only else None
        with torch.no_grad():
            self.decoder = decoder.from_network(network, convert)
        del network
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the loaded network left behind
        self.capacity = 0
        self.length = 0
        self.graph = None
        self.launch = {"cuda_graph": False, "compiled": False}
        self.pieces = decoder.Pieces()

    # ---- prompt and scores

    def _prompt(self, ids: Tensor, layer_done=None) -> Tensor:
        """Hidden states (B, T, hidden) of ids (B, T) after the last norm; ``layer_done(index, keys, values)``."""
        weights = self.decoder
        x = functional.embedding(ids, weights.embedding)
        if weights.positions is not None:
            x = x + weights.positions[: ids.shape[1]]
        cosine, sine = weights.tables(ids.shape[1])
        for index, layer in enumerate(weights.layers):
            x, keys, values = decoder.prompt_block(x, layer, weights.shape, cosine, sine)
            if layer_done is not None:
                layer_done(index, keys, values)
        return decoder.normalize(x, weights.norm, weights.shape.eps)

    @torch.no_grad()
    def prefill(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.device)
        length = ids.shape[1]
        self.reserve(length + 1)

        def keep(index, keys, values):
            self.caches[index][:, :, :length] = torch.cat((keys, values))

        last = self._prompt(ids, keep)[:, -1:]
        self.tokens[:, :length] = ids
        self.tokens[:, length] = linear.product(last, self.decoder.head)[:, -1].argmax(-1)
        self.position.fill_(length)
        self.length = length
        return self.views[length]

    @torch.no_grad()
    def score(self, ids: Tensor, first: int = 0) -> Tensor:
        return linear.product(self._prompt(ids.to(self.device))[:, first:], self.decoder.head)

    # ---- one token

    @torch.no_grad()
    def decode(self, token: Tensor) -> Tensor:
        if self.length >= self.capacity:
            self.reserve(self.length + 1)
        if token is not self.views[self.length]:
            self.views[self.length].copy_(token)
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()
        self.length += 1
        # each token has a place of its own: what was returned before stays true
        return self.views[self.length]

    def _step(self) -> None:
        decoder.step(self.pieces, self.decoder, self.caches, self.tokens, self.position, self.tables)

    @torch.no_grad()
    def generate(self, ids: Tensor, new_tokens: int) -> Tensor:
        self.reserve(ids.shape[1] + new_tokens)
        token = self.prefill(ids)
        for _ in range(new_tokens - 1):
            token = self.decode(token)
        return self.tokens[:, : ids.shape[1] + new_tokens].clone()

    # ---- the static cache and its graph

    @torch.no_grad()
    def reserve(self, length: int) -> None:
        """Room for ``length`` tokens in the cache: a power of two, at most the context. Tokens in it are kept.

        Growing captures the step anew, so a caller that knows the length says so before it measures.
        """
        if length <= self.capacity:
            return
        if length > self.context:
            raise ValueError(f"{length} tokens do not fit the model's context of {self.context}")
        capacity = min(self.context, max(CAPACITY, 1 << (length - 1).bit_length()))
        shape, layers, old = self.decoder.shape, len(self.decoder.layers), self.capacity
        size = (2, shape.kv_heads, capacity, shape.width)  # keys and values
        options = {"dtype": self.decoder.dtype, "device": self.device}
        kept = (self.caches, self.tokens, self.position) if old else None
        self.graph = None  # the graph of the old addresses
        # zeros: what is masked still takes part in the products, and must not be a NaN
        self.caches = [torch.zeros(size, **options) for _ in range(layers)]
        self.tokens = torch.zeros(1, capacity + 1, dtype=torch.int64, device=self.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.tables = self.decoder.tables(capacity)
        self.capacity = capacity
        if self.device.type == "cuda":
            self._capture()
        if kept:
            for new, before in zip(self.caches, kept[0], strict=True):
                new[:, :, :old] = before
            self.tokens[:, : old + 1] = kept[1]
            self.position.copy_(kept[2])
        self.views = [self.tokens[:, index : index + 1] for index in range(capacity + 1)]

    def _capture(self) -> None:
        """Compile the step and capture it. Its rehearsals leave tokens and cache of no meaning behind."""
        torch.cuda.synchronize(self.device)
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            started = time.perf_counter()
            self._compile()
            for _ in range(3):
                self._step()
            stream.synchronize()
            self.launch["compile_s"] = time.perf_counter() - started
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise CellFailure("error", f"the decode step cannot be captured as a CUDA graph: {first}") from error
        self.graph = graph
        self.launch.update(cuda_graph=True, capacity=self.capacity)
        for tensor in (*self.caches, self.tokens, self.position):
            tensor.zero_()

    def _compile(self) -> None:
        """One step of compiled pieces; where torch cannot compile them, its eager kernels, and the proof says so."""
        if not self.variant.option("compile", True) or "compile_error" in self.launch:
            return
        # compiled once, a piece serves every layer: they differ in the tensors that are handed in
        compiled = (torch.compile(piece, fullgraph=True, dynamic=False, options=COMPILE) for piece in decoder.Pieces())
        self.pieces = decoder.Pieces(*compiled)
        try:
            self._step()
            self.launch["compiled"] = True
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.pieces = decoder.Pieces()
            self.launch["compile_error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
            self.position.zero_()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def cache_bytes(self, length: int) -> int:
        return sum(cache.nbytes for cache in self.caches) // self.capacity * length

    def proof(self) -> dict:
        """See ``Engine.proof``; and ``launch``: whether the step was compiled, captured, and how long that took."""
        weight_bytes: dict[str, int] = {}
        parameters: dict[str, int] = {}
        for tensor in self.decoder.tensors():
            name = str(tensor.dtype).removeprefix("torch.")
            weight_bytes[name] = weight_bytes.get(name, 0) + tensor.numel() * tensor.element_size()
            place = f"{name}@{tensor.device.type}"
            parameters[place] = parameters.get(place, 0) + tensor.numel()
        sizes = [linear.size(weight) for weight in self.decoder.linears()]
        total = sum(count for count, _ in sizes)
        quantized = sum(count for count, bits in sizes if bits == self.variant.bits)
        head = self.decoder.head
        shared = isinstance(head, linear.Dense) and head.weight.data_ptr() == self.decoder.embedding.data_ptr()
        tables = [self.decoder.positions] if shared else [self.decoder.positions, self.decoder.embedding]
        return {
            "weight_bytes": weight_bytes,
            "parameters": parameters,
            "unread_bytes": sum(table.numel() * table.element_size() for table in tables if table is not None),
            "linear_weights": total,
            "linear_quantized": quantized,
            "quantized_fraction": quantized / total,
            "cache": True,
            "launch": dict(self.launch),
        }
