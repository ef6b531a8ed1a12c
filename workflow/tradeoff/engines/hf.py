"""transformers on torch: float32, float16 and bfloat16 weights, bitsandbytes INT8, NF4 and FP4, AutoRound's files."""

import importlib
import inspect
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DynamicCache,
    GenerationConfig,
)

from workflow.tradeoff import architecture
from workflow.tradeoff.engines import attention, matrices, packed
from workflow.tradeoff.variants import Variant

# bitsandbytes warns on every call that INT8 activations pass through float16: said once, in the README
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

FLOAT = 16  # bits from which a weight counts as not quantized
PROBE = 8  # tokens of a prompt that is only run to look at what it leaves
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "HfEngine":
    torch.set_num_threads(threads)
    return HfEngine(load_model(variant, artifact, device), variant, device)


def warm(artifact: Path) -> None:
    """Import the model's class, most of what a process takes to start."""
    config = AutoConfig.from_pretrained(artifact, local_files_only=True, trust_remote_code=False)
    MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def passed(variant: Variant, artifact: Path) -> None:
    """Import bitsandbytes, or AutoRound, where it would not touch a GPU."""
    if torch.cuda.is_available():
        return
    if variant.quantizer == "auto-round":
        packed.imported()
    if variant.quantizer == "bitsandbytes":
        importlib.import_module("transformers.integrations.bitsandbytes")
        importlib.import_module("bitsandbytes")


def load_model(variant: Variant, artifact: Path, device: str, as_stored: bool = False):
    """The transformers model of a variant, in evaluation mode on ``device``; only safetensors are read.

    as_stored: quantized weights keep the layout that they are stored in (``keep_layout``), for who reads them.
    """
    # cuDNN's attention plans each new length for some 50 ms, and a growing cache has a new one at every token
    torch.backends.cuda.enable_cudnn_sdp(False)
    network = AutoModelForCausalLM.from_pretrained(
        artifact,
        dtype=packed.STORED if variant.quantizer == "auto-round" else compute_dtype(variant, device),
        device_map={"": device},
        **quantization(variant, device),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    # a checkpoint's own generation settings (sampling, penalties, stop tokens) have no place in a measurement
    network.generation_config = GenerationConfig()
    network.eval()
    if variant.quantizer == "auto-round":
        packed.widen(network, compute_dtype(variant, device))
    keep_layout(network, every=as_stored)
    network.attention_left_out = attention.settle(network)
    return network


def keep_layout(network: nn.Module, every: bool) -> None:
    """Keep bitsandbytes from laying 4-bit weights out anew, as it does at a first pass on CPUs with AVX-512's bfloat16.

    Those that it cannot lay out so keep theirs (rows in groups of 32, whole blocks in a row: else its pass ends in an
    assertion), and with ``every`` all.
    """
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            rows, columns = module.weight.quant_state.shape
            if every or rows % 32 or columns % module.weight.quant_state.blocksize:
                module.support_avx512bf16_for_cpu = False


def compute_dtype(variant: Variant, device: str) -> torch.dtype:
    """dtype of what is not quantized: the variant's own, else float32 on the CPU and float16 on a GPU."""
    return DTYPES.get(variant.precision, torch.float32 if device == "cpu" else torch.float16)


def quantization(variant: Variant, device: str) -> dict[str, object]:
    """How the weights are quantized while they are loaded, or by which kernels those that are run; else nothing."""
    if variant.quantizer == "auto-round":
        return {"quantization_config": packed.config(device)}
    if variant.quantizer != "bitsandbytes":
        return {}
    recipe = variant.recipe
    if recipe["bits"] == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=recipe["threshold"])}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe["type"],
        bnb_4bit_use_double_quant=recipe["double_quant"],
        bnb_4bit_compute_dtype=compute_dtype(variant, device),
    )
    return {"quantization_config": config}


class HfEngine:
    """A transformers causal LM with a cache that grows, as ``generate`` uses it."""

    def __init__(self, network, variant: Variant, device: str):
        self.network = network
        self.variant = variant
        self.device = torch.device(device)
        self.context = architecture.longest(network.config)
        self.keeps = "logits_to_keep" in inspect.signature(network.forward).parameters
        self.cache = None

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        self.cache = DynamicCache(config=self.network.config)
        return self._step(ids.to(self.device))

    @torch.inference_mode()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        return self._step(token)

    def _step(self, ids):
        output = self.network(ids, cache=self.cache, use_cache=True, **self._last(1))
        return output.logits[:, -1].argmax(-1, keepdim=True)

    @torch.inference_mode()
    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        keep = ids.shape[1] - first
        return self.network(ids.to(self.device), use_cache=False, **self._last(keep)).logits[:, -keep:]

    def _last(self, positions: int) -> dict:
        """The argument that asks for the logits of the last positions alone, where the family's models take one."""
        return {"logits_to_keep": positions} if self.keeps else {}

    @torch.inference_mode()
    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        ids = ids.to(self.device)
        return self.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def cache_bytes(self, length: int) -> int:
        """Read off the cache itself, before and after a token: heads may share keys, and a state need not grow."""
        token = self.prefill(self._probe())
        before = held(self.cache)
        self.decode(token)
        each = held(self.cache) - before
        return before + (length - self._probe().shape[1]) * each

    def _probe(self) -> torch.Tensor:
        """A prompt (1, n) that is only run to look at what it leaves, with room for one more token."""
        return torch.ones(1, max(1, min(PROBE, self.context - 1)), dtype=torch.int64)

    def proof(self) -> dict:
        token = self.prefill(self._probe())
        return torch_proof(self.network, self.variant, lambda: self.decode(token))


def held(cache) -> int:
    """Bytes of all tensors of a transformers cache."""
    layers = [vars(layer) for layer in cache.layers]
    return sum(part.nbytes for layer in layers for part in layer.values() if isinstance(part, torch.Tensor))


def torch_proof(network, variant: Variant, step: Callable[[], object]) -> dict:
    """What a torch model holds, and what ``step``, one token, reads of it: see ``Engine.proof``.

    Tied weights count once.
    """
    weight_bytes: dict[str, int] = {}
    parameters: dict[str, int] = {}
    tensors = list(_tensors(network))
    seen = set()
    for tensor in tensors:
        key = matrices.identity(tensor)
        # a mask is no weight
        if key in seen or tensor.numel() == 0 or tensor.dtype == torch.bool:
            continue
        seen.add(key)
        for part in matrices.parts(tensor):
            name = str(part.dtype).removeprefix("torch.")
            weight_bytes[name] = weight_bytes.get(name, 0) + part.nbytes
            place = f"{name}@{part.device.type}"
            parameters[place] = parameters.get(place, 0) + part.numel()
    traced = matrices.watch(network, [tensor for tensor in tensors if tensor.dtype != torch.bool], step)
    found = matrices.products(network, traced)
    return {
        "weight_bytes": weight_bytes,
        "parameters": parameters,
        "unread_bytes": sum(weight_bytes.values()) - traced.read(),
        **matrices.counted(found, variant),
        "cache": True,
        "attention": network.config._attn_implementation,
        "attention_left_out": getattr(network, "attention_left_out", ""),
        **(published(network) if variant.checkpoint else {}),
        **(packed.proof(network, found) if variant.quantizer == "auto-round" else {}),
    }


def published(network) -> dict:
    """What a published checkpoint says of its quantization, and the layers that it left in float."""
    stated = getattr(network.config, "quantization_config", None) or {}
    names = {name: module for name, module in network.named_modules() if not isinstance(module, nn.Embedding)}
    floats = [
        name
        for name, module in names.items()
        if any(part.ndim >= 2 and matrices.stored(part)[1] >= FLOAT for part in module.parameters(recurse=False))
    ]
    stated = stated if isinstance(stated, dict) else stated.to_dict()
    plain = {key: value for key, value in stated.items() if isinstance(value, str | int | float | bool | list)}
    return {"quantization": plain, "float_layers": floats}


def _tensors(network):
    """Parameters, buffers, and what bitsandbytes keeps beside them: scales, code books, nested scales."""
    for tensor in (*network.parameters(), *network.buffers()):
        yield tensor
        state = getattr(tensor, "quant_state", None)
        while state is not None:
            yield from (part for part in (state.absmax, state.code, state.offset) if part is not None)
            state = state.state2
    for module in network.modules():
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if scales is None:
            scales = getattr(getattr(module, "weight", None), "SCB", None)
        if scales is not None:
            yield scales
