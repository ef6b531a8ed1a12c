"""ONNX Runtime over a fused decoder (``fuse``): past and present are one buffer, and a step is a replayed CUDA graph.

Nothing is bound anew from token to token: the graph reads the token, the position and the length from fixed addresses,
and torch moves them on, in a small graph of its own, on the same stream.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from workflow.tradeoff import architecture
from workflow.tradeoff.engines.onnx import PROVIDERS, TORCH, OnnxEngine
from workflow.tradeoff.variants import Variant

CAPACITY = 512  # tokens that the cache starts with


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "SharedEngine":
    torch.set_num_threads(threads)
    engine = SharedEngine(variant, artifact, model, device, threads)
    engine.reserve(min(CAPACITY, engine.context))
    return engine


class SharedEngine(OnnxEngine):
    """A fused decoder with a static cache. On the CPU (tests) nothing is captured."""

    def __init__(self, variant: Variant, artifact: Path, model: Path, device: str, threads: int):
        self.stream = torch.cuda.Stream() if device == "cuda" else None
        self.launch = {"cuda_graph": False}
        self.capacity = self.captured = 0
        super().__init__(variant, artifact, model, device, threads)
        self.one_at_a_time = "its fused step is captured for one sequence"
        first = next(iter(self.past.values()))
        self.kv_heads, self.width, self.dtype = first.shape[1], first.shape[3], TORCH[first.type]

    def provider_options(self, profiling: bool) -> dict:
        options = super().provider_options(profiling)
        if self.provider == PROVIDERS["cuda"]:
            options["user_compute_stream"] = str(self.stream.cuda_stream)
            # a replay runs no node that a profile could count
            options["enable_cuda_graph"] = "0" if profiling else "1"
        return options

    def _inputs(self, binding, ids, positions, lengths, total: int) -> None:
        """Bind what a run reads beside the cache: ids (B, T), positions (B, T), lengths (B) int32 = total - 1."""
        self._bind(binding.bind_input, "input_ids", ids, ids.shape)
        if "position_ids" in self.inputs:
            self._bind(binding.bind_input, "position_ids", positions, positions.shape)
        self._bind(binding.bind_input, "seqlens_k", lengths, lengths.shape)
        # read on the host: it only sizes the work, and the true lengths are seqlens_k
        binding.bind_cpu_input("total_sequence_length", np.array([total], dtype=np.int32))

    def _launch(self, binding, graph: int) -> None:
        """Run on this engine's stream without waiting; graph: -1 runs plainly, a number is captured, then replayed."""
        options = ort.RunOptions()
        options.log_severity_level = 3
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.device.type == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(graph))
        self.session.run_with_iobinding(binding, options)

    def _whole(self, ids, cache: dict | None):
        """Logits (B, T, V) of whole sequences from an empty cache, into ``cache`` or buffers of no further use."""
        batch, length = ids.shape
        positions = torch.arange(length, device=self.device).expand(batch, length).contiguous()
        lengths = torch.full((batch,), length - 1, dtype=torch.int32, device=self.device)
        logits = torch.empty(
            batch, length, architecture.vocabulary(self.config), dtype=self.logits_dtype, device=self.device
        )
        shape = (batch, self.kv_heads, length, self.width)
        binding = self.session.io_binding()
        self._inputs(binding, ids, positions, lengths, length)
        self._bind(binding.bind_output, "logits", logits, logits.shape)
        empty = torch.empty(1, dtype=self.dtype, device=self.device)
        kept = []
        for name in self.past:
            if cache is None:
                present = torch.empty(shape, dtype=self.dtype, device=self.device)
                self._bind(binding.bind_input, name, empty, (batch, self.kv_heads, 0, self.width))
            else:
                present = cache[name]
                self._bind(binding.bind_input, name, present, present.shape)
            self._bind(binding.bind_output, name.replace("past_key_values", "present"), present, present.shape)
            kept.append(present)
        self._launch(binding, -1)
        self._wait()  # before the buffers of this run may be used again
        return logits

    @torch.inference_mode()
    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        with self._on_stream():
            return self._whole(ids.to(self.device).contiguous(), None)[:, first:]

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        self.reserve(length + 1)
        with self._on_stream():
            ids = ids.to(self.device).contiguous()
            token = self._whole(ids, self.cache)[:, -1].argmax(-1, keepdim=True)
            self.tokens[:, :length] = ids
            self.tokens[:, length : length + 1] = token
            self.token.copy_(token)
            self.position.fill_(length)
            self.lengths.fill_(length)
            self._wait()
        self.length = length
        return self.views[length]

    @torch.inference_mode()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        if self.length >= self.capacity:
            self.reserve(self.length + 1)
        if token is not self.views[self.length]:
            self.token.copy_(token)
            self._follow()
        self._launch(self.step, self.captured)
        if self.advance is None:
            self._advance()
        else:
            with torch.cuda.stream(self.stream):
                self.advance.replay()
            torch.cuda.current_stream().wait_stream(self.stream)
        self.length += 1
        return self.views[self.length]

    def _advance(self) -> None:
        """The greedy token of the logits becomes the next input, and is kept at its place in ``tokens``."""
        self.token.copy_(self.logits[:, -1].argmax(-1, keepdim=True))
        self.position.add_(1)
        self.lengths.add_(1)
        self.tokens.index_copy_(1, self.position, self.token)

    def _on_stream(self):
        return torch.cuda.stream(self.stream)  # None is no stream: a context that does nothing

    def _follow(self) -> None:
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())

    def _wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    @torch.inference_mode()
    def reserve(self, length: int) -> None:
        """Room for ``length`` tokens in the cache; tokens in it are kept. See ``GraphEngine.reserve``."""
        if length <= self.capacity:
            return
        if length > self.context:
            raise ValueError(f"{length} tokens do not fit the model's context of {self.context}")
        old, kept = self.capacity, dict(self.cache)
        self.capacity = min(self.context, max(min(CAPACITY, self.context), 1 << (length - 1).bit_length()))
        shape = (1, self.kv_heads, self.capacity, self.width)
        with self._on_stream():
            self.cache = {name: torch.zeros(shape, dtype=self.dtype, device=self.device) for name in self.past}
            tokens = torch.zeros(1, self.capacity + 1, dtype=torch.int64, device=self.device)
            if kept:
                state = self.token.clone(), self.position.clone(), self.lengths.clone()
                tokens[:, : old + 1] = self.tokens
            self.tokens = tokens
            self.token = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
            self.position = torch.zeros(1, dtype=torch.int64, device=self.device)
            self.lengths = torch.zeros(1, dtype=torch.int32, device=self.device)
            self.logits = torch.empty(
                1, 1, architecture.vocabulary(self.config), dtype=self.logits_dtype, device=self.device
            )
            self._prepare()
            if kept:
                for name, before in kept.items():
                    self.cache[name][:, :, :old] = before
                for now, before in zip((self.token, self.position, self.lengths), state, strict=True):
                    now.copy_(before)
            self._wait()
        self.views = [self.tokens[:, index : index + 1] for index in range(self.capacity + 1)]

    def _prepare(self) -> None:
        """Bind the step once and, on a GPU, capture it: ONNX Runtime its graph, torch what moves the token on."""
        self.step = self.session.io_binding()
        self._inputs(self.step, self.token, self.position[:, None], self.lengths, self.capacity)
        self._bind(self.step.bind_output, "logits", self.logits, self.logits.shape)
        for name, buffer in self.cache.items():
            self._bind(self.step.bind_input, name, buffer, buffer.shape)
            self._bind(self.step.bind_output, name.replace("past_key_values", "present"), buffer, buffer.shape)
        self.advance = None
        if self.device.type != "cuda":
            return
        self.captured += 1  # addresses have changed: another graph
        for _ in range(3):  # ONNX Runtime captures in one of the first runs
            self._launch(self.step, self.captured)
            self._advance()
        self._wait()
        self.advance = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.advance, stream=self.stream):
            self._advance()
        self.launch.update(cuda_graph=True, capacity=self.capacity)
        for tensor in (*self.cache.values(), self.token, self.position, self.lengths, self.tokens):
            tensor.zero_()

    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        self.reserve(ids.shape[1] + new_tokens)
        token = self.prefill(ids)
        for _ in range(new_tokens - 1):
            token = self.decode(token)
        return self.tokens[:, : ids.shape[1] + new_tokens].clone()

    def proof(self) -> dict:
        return super().proof() | {"launch": dict(self.launch)}

    def _probe(self) -> None:
        for width in (4, 1):
            with self._on_stream():
                self._whole(torch.ones(1, width, dtype=torch.int64, device=self.device), None)
