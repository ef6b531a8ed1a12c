"""ONNX Runtime, with IO binding: past and present keys and values stay on the device, only a token crosses."""

import json
import math
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from transformers import AutoConfig

from workflow.tradeoff import architecture
from workflow.tradeoff.engines import onnx_kernels
from workflow.tradeoff.engines.onnx_graph import graph_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# matrix products are where the time and the weights are: these must run where they were asked to
HEAVY = {
    "MatMul",
    "Gemm",
    "FusedMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "MatMulNBits",
}
NO_BATCH = "without past keys and values each token runs every sequence again: nobody serves a batch so"
TORCH = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(int64)": torch.int64}
NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.int64: np.int64, torch.int32: np.int32}


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "OnnxEngine":
    torch.set_num_threads(threads)
    engine = OnnxEngine(variant, artifact, model, device, threads)
    if engine.device.type == "cpu":
        onnx_kernels.check(engine.path, threads)
    return engine


def passed(variant: Variant, artifact: Path) -> None:
    """Processes that are forked off need not check this file's kernels again."""
    onnx_kernels.checked.add(artifact / "model.onnx")


class OnnxEngine:
    """An exported causal LM in ONNX Runtime, with or without past key values as its graph has it."""

    def __init__(self, variant: Variant, artifact: Path, model: Path, device: str, threads: int):
        self.variant = variant
        self.path = artifact / "model.onnx"
        self.provider = PROVIDERS["cpu" if variant.option("provider") == "cpu" else device]
        self.threads = threads
        self.config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        self.context = architecture.longest(self.config)
        self.session = self._open(ort.SessionOptions())
        self.device = torch.device("cuda" if self.session.get_providers()[0] == PROVIDERS["cuda"] else "cpu")
        inputs = {entry.name: entry for entry in self.session.get_inputs()}
        self.inputs = set(inputs)
        self.past = {name: entry for name, entry in inputs.items() if name.startswith("past_key_values")}
        self.logits_dtype = TORCH[next(o.type for o in self.session.get_outputs() if o.name == "logits")]
        self.one_at_a_time = "" if self.past else NO_BATCH
        self.sequence = None
        self.cache: dict[str, torch.Tensor] = {}
        self.length = 0

    def provider_options(self, profiling: bool) -> dict:
        """Settings of the execution provider; profiling: for a session that only counts nodes."""
        if self.provider != PROVIDERS["cuda"]:
            return {}
        # TF32 is on by default here and off in torch: float32 means float32 in both
        return {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

    def _open(self, options: ort.SessionOptions, profiling: bool = False) -> ort.InferenceSession:
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        if self.provider not in ort.get_available_providers():
            raise CellFailure(
                "unsupported", f"this ONNX Runtime has no {self.provider}: {ort.get_available_providers()}"
            )
        if self.provider == PROVIDERS["cuda"]:
            ort.preload_dlls()  # CUDA and cuDNN of the wheels, beside those that torch has loaded
        chosen = (self.provider, self.provider_options(profiling))
        session = ort.InferenceSession(self.path, options, providers=[chosen])
        if session.get_providers()[0] != self.provider:
            raise CellFailure(
                "fell_back",
                f"ONNX Runtime could not start {self.provider} and fell back to {session.get_providers()[0]}: "
                "a library that it needs is missing",
            )
        return session

    def run(self, ids: torch.Tensor, cache: dict[str, torch.Tensor], length: int):
        """One forward pass of ids (B, T) after ``length`` cached tokens: logits (B, T, V) and the new cache."""
        batch, width = ids.shape
        feeds = {"input_ids": ids}
        if "attention_mask" in self.inputs:
            feeds["attention_mask"] = torch.ones(batch, length + width, dtype=torch.int64, device=self.device)
        if "position_ids" in self.inputs:
            positions = torch.arange(length, length + width, device=self.device)
            feeds["position_ids"] = positions.expand(batch, width).contiguous()
        logits = torch.empty(
            batch, width, architecture.vocabulary(self.config), dtype=self.logits_dtype, device=self.device
        )
        present, outputs = {}, {"logits": logits}
        for name, entry in self.past.items():
            dtype = TORCH[entry.type]
            # an empty past still needs an address
            feeds[name] = cache[name] if cache else torch.empty(1, dtype=dtype, device=self.device)
            present[name] = torch.empty(self._shape(entry, batch, length + width), dtype=dtype, device=self.device)
            outputs[name.replace("past_key_values", "present")] = present[name]
        binding = self.session.io_binding()
        for name, tensor in feeds.items():
            shape = tensor.shape
            if name in self.past and not cache:
                shape = self._shape(self.past[name], batch, 0)
            self._bind(binding.bind_input, name, tensor, shape)
        for name, tensor in outputs.items():
            self._bind(binding.bind_output, name, tensor, tensor.shape)
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # ONNX Runtime runs on a stream of its own
        self.session.run_with_iobinding(binding)
        return logits, present

    def _bind(self, bind, name, tensor, shape) -> None:
        bind(name, self.device.type, self.device.index or 0, NUMPY[tensor.dtype], tuple(shape), tensor.data_ptr())

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids.to(self.device)
        logits, self.cache = self.run(ids, {}, 0)
        self.sequence, self.length = ids, ids.shape[1]
        return logits[:, -1].argmax(-1, keepdim=True)

    @torch.inference_mode()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        if self.past:
            logits, self.cache = self.run(token.contiguous(), self.cache, self.length)
            self.length += 1
        else:
            self.sequence = torch.cat([self.sequence, token], dim=1)
            logits, _ = self.run(self.sequence, {}, 0)
        return logits[:, -1].argmax(-1, keepdim=True)

    @torch.inference_mode()
    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        return self.run(ids.to(self.device).contiguous(), {}, 0)[0][:, first:]

    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        tokens = [ids.to(self.device), self.prefill(ids)]
        for _ in range(new_tokens - 1):
            tokens.append(self.decode(tokens[-1]))
        return torch.cat(tokens, dim=1)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def cache_bytes(self, length: int) -> int:
        """By the shapes that the file itself gives its past."""
        shapes = [(self._shape(entry, 1, length), TORCH[entry.type]) for entry in self.past.values()]
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes)

    def _shape(self, entry, batch: int, length: int) -> list[int]:
        """Shape of a past input that holds ``length`` tokens: of its open dimensions the first is the batch."""
        return [batch if at == 0 else length if isinstance(size, str) else size for at, size in enumerate(entry.shape)]

    def proof(self) -> dict:
        proof = graph_proof(self.path, 0 if self.variant.mixed else self.variant.bits)
        if self.variant.mixed:
            proof["counted"] = f"of {self.variant.bits} or 8 bits"
        proof["cache"] = bool(self.past)
        proof.update(self._profile())
        return proof

    def _profile(self) -> dict:
        """Nodes of the graph that really runs, by provider: read from ONNX Runtime's own profile of two steps."""
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            running, self.session = self.session, self._open(options, profiling=True)
            try:
                self._probe()
                events = json.loads(Path(self.session.end_profiling()).read_text())
            finally:
                self.session = running
        return profile_proof(events, self.provider)

    def _probe(self) -> None:
        """Two steps, for the profile."""
        self.decode(self.prefill(torch.ones(1, 4, dtype=torch.int64)))


def profile_proof(events: list[dict], provider: str) -> dict:
    """Nodes per provider, executed op types, Memcpy nodes, and matrix products that ran elsewhere.

    events: ONNX Runtime's profile, of which one ``*_kernel_time`` event is one node executed once.
    """
    nodes = {
        (event["name"], event["args"]["op_name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    elsewhere = Counter(op for _, op, where in nodes if op in HEAVY and where != provider)
    return {
        "providers": dict(Counter(where for _, _, where in nodes)),
        "executed": dict(Counter(op for _, op, _ in nodes)),
        "memcpy": sum(op.startswith("Memcpy") for _, op, _ in nodes),
        "heavy_elsewhere": dict(elsewhere),
    }
