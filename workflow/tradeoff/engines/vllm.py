"""vLLM inside this process: token ids in, one engine step a token, log-probabilities over the whole vocabulary.

Batches are vLLM's own: equal prompts become as many requests, and each step gives every one of them a token. Prefix
caching and asynchronous scheduling are off, so that a prompt is computed each time, and a step is over when it returns.
"""

import importlib
import itertools
import os
from pathlib import Path

import torch
from transformers import AutoConfig

from workflow.tradeoff import architecture
from workflow.tradeoff.engines.vllm_proof import cache_of, cache_type, launch, model_proof
from workflow.tradeoff.engines.vllm_scores import by_vocabulary
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, so that its steps can be timed
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # one more than the context: the token after a full one, which never runs
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # built at its first use, for a sampling that greedy decoding never does
}
FP8_LEAST = (8, 9)  # compute capability from which a card multiplies in FP8
FP8_OUTPUT = "For FP8 input, output must have dtype BF16"  # of vLLM's FlashAttention 3, seen on an H100
BLOCK = 16  # tokens of a block of the cache, of which vLLM may make larger ones
SLAB = 1 << 28  # log-probabilities that a pass of scoring gives: 1 GiB in float32
EMPTY_STEPS = 10_000  # after which an engine that gives nothing is stuck
GREEDY = {"temperature": 0.0, "ignore_eos": True, "detokenize": False}


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "VllmEngine":
    torch.set_num_threads(threads)
    library = imported(variant)
    check_card(variant, torch.cuda.get_device_capability(0), torch.cuda.get_device_name(0))
    return VllmEngine(library, variant, artifact, device)


def imported(variant: Variant):
    """The module vllm; CellFailure where it is not installed."""
    os.environ.update(ENVIRONMENT | variant.variables)  # vLLM reads them when it is imported
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise CellFailure("unsupported", "the package vllm is not installed where this cell ran") from error


def check_card(variant: Variant, capability: tuple[int, int], name: str) -> None:
    """CellFailure where a card does not multiply in the variant's type."""
    if "fp8" in (variant.quantizer, variant.cache_type) and tuple(capability) < FP8_LEAST:
        have, need = (".".join(map(str, version)) for version in (capability, FP8_LEAST))
        raise CellFailure("unsupported", f"FP8 needs a card of compute capability {need}, and {name} has {have}")


class VllmEngine:
    """vLLM's LLMEngine with a cache of a fixed size: ``cache_tokens`` of the variant's options, in whole blocks."""

    def __init__(self, library, variant: Variant, artifact: Path, device: str):
        self.library, self.variant = library, variant
        self.device = torch.device(device)
        config = AutoConfig.from_pretrained(artifact, local_files_only=True, trust_remote_code=False)
        self.context = min(architecture.longest(config), variant.option("length"))
        self.sequences = variant.option("sequences")
        self.room = max(variant.option("cache_tokens"), self.context)  # tokens of all sequences at once
        self.names = itertools.count()
        self.rows: list[list[int]] = []  # of the present sequences: every token, the last one not run yet
        self.live: dict[str, int] = {}  # their requests' names: the row
        self.reserved = 0
        try:
            self.engine = library.LLMEngine.from_engine_args(library.EngineArgs(**self.arguments(artifact)))
        except (ValueError, RuntimeError) as error:
            first = next(iter(str(error).strip().splitlines()), "")
            if "not supported" in str(error):
                raise CellFailure("unsupported", f"vLLM does not run this: {first}") from error
            if FP8_OUTPUT in first:
                words = (
                    "its attention on this card reads an FP8 cache for bfloat16 alone: give the recipe dtype: bfloat16"
                )
                raise CellFailure("unsupported", f"vLLM does not run this: {words}") from error
            raise
        self.vocabulary = self.engine.model_config.get_vocab_size()
        self.runner = self.engine.collective_rpc(lambda worker: worker.model_runner)[0]

    def arguments(self, artifact: Path) -> dict:
        """What vLLM is told, as ``vllm serve`` would be."""
        return {
            "model": str(artifact),
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "dtype": self.variant.recipe.get("dtype", "float16"),
            "kv_cache_dtype": self.variant.option("cache_type"),
            "quantization": "fp8" if self.variant.quantizer == "fp8" else None,
            "max_model_len": self.context + 1,
            "max_num_seqs": self.sequences,
            "max_num_batched_tokens": max(self.room + BLOCK, self.sequences),
            # a cache of this many blocks, of which a sequence leaves its last one unfilled, and vLLM the first; the two
            # below keep it from taking what is free of the card instead
            "num_gpu_blocks_override": -(-self.room // BLOCK) + self.sequences + 2,
            "kv_cache_memory_bytes": 1 << 30,
            "gpu_memory_utilization": 0.01,
            "enable_prefix_caching": False,
            "async_scheduling": False,
            "max_logprobs": -1,
            "logprobs_mode": "raw_logprobs",
            "enforce_eager": self.variant.option("eager"),
            "disable_log_stats": True,
            "trust_remote_code": False,
            "seed": 0,
        }

    # ---- sequences

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, T), one sequence a row; greedy next tokens (B, 1)."""
        count, length = ids.shape
        self._drop()
        self._fits(count, max(self.reserved, length + 1))
        self.rows = ids.tolist()
        return self._begin()

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        if token[:, 0].tolist() != [row[-1] for row in self.rows]:
            raise ValueError("vLLM goes on with the tokens that it gave, and with no others")
        if len(self.rows[0]) > self.context:
            raise ValueError(f"{len(self.rows[0])} tokens do not fit the context of {self.context}")
        # a score in between took their place: the same tokens run again
        return self._step() if self.live else self._begin()

    def _begin(self) -> torch.Tensor:
        """Ask for what follows ``rows``; the first tokens of it (B, 1)."""
        room = self.context + 1 - len(self.rows[0])
        for place, row in enumerate(self.rows):
            self.live[self._ask(row, room)] = place
        return self._step()

    def _ask(self, row: list[int], new_tokens: int) -> str:
        """Add a request for what follows ``row``; its name."""
        name = str(next(self.names))
        self.engine.add_request(name, prompt(row), self._sampling(max_tokens=new_tokens))
        return name

    def _sampling(self, **asked):
        kind = importlib.import_module("vllm.sampling_params").RequestOutputKind.DELTA
        return self.library.SamplingParams(**GREEDY, output_kind=kind, **asked)

    def _step(self) -> torch.Tensor:
        """One token (B, 1) of each sequence."""
        found: dict[int, int] = {}
        for output in self.engine.step():
            place, tokens = self.live[output.request_id], output.outputs[0].token_ids
            if len(tokens) == 1:
                found[place] = tokens[0]
            if output.finished:
                del self.live[output.request_id]
        if len(found) != len(self.rows):
            raise CellFailure("error", f"a step of vLLM gave {len(found)} of {len(self.rows)} sequences one token")
        for place, token in found.items():
            self.rows[place].append(token)
        return torch.tensor([[row[-1]] for row in self.rows])

    def _drop(self) -> None:
        """Give the blocks of the present sequences back."""
        if self.live:
            self.engine.abort_request(list(self.live))
        self.live = {}

    def _fits(self, count: int, length: int) -> None:
        """CellFailure where ``count`` sequences of ``length`` tokens are more than the variant makes room for."""
        asked = {
            "length": (length, self.context),
            "sequences": (count, self.sequences),
            "cache_tokens": (count * length, self.room),
        }
        for option, (size, most) in asked.items():
            if size > most:
                raise CellFailure(
                    "unsupported",
                    f"{count} x {length} tokens: the variant lets vLLM make room for {most} (options.{option})",
                )

    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        self._drop()
        row = ids[0].tolist()
        self._fits(1, len(row) + new_tokens)
        name = self._ask(row, new_tokens)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if output.request_id == name:
                    row.extend(output.outputs[0].token_ids)
        return torch.tensor([row])

    def reserve(self, length: int) -> None:
        self.reserved = length

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # ---- scores

    @torch.inference_mode()
    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Log-probabilities, which are logits up to a constant, in float32."""
        self._drop()
        count, length = ids.shape
        self._fits(1, length)
        many = max(1, min(SLAB // (length * self.vocabulary), self.room // length, self.sequences))
        shape = (count, length - first, self.vocabulary)
        # what vLLM would leave out must be no number
        result = torch.full(shape, torch.nan, dtype=torch.float32, device=self.device)
        for start in range(0, count, many):
            self._score(ids[start : start + many].tolist(), first, result[start : start + many])
        return result

    def _score(self, rows: list[list[int]], first: int, result: torch.Tensor) -> None:
        """Fill ``result`` (B, T - first, V); past LLMEngine's outputs, which are lists of Python numbers."""
        last = len(rows[0]) - 1
        asked = self._sampling(
            max_tokens=1, logprobs=self.vocabulary, prompt_logprobs=self.vocabulary if first < last else None
        )
        core, places = self.engine.engine_core, {}
        for place, row in enumerate(rows):
            request = self.engine.input_processor.process_inputs(
                str(next(self.names)), prompt(row), asked, supported_tasks=self.engine.get_supported_tasks()
            )
            self.engine.input_processor.assign_request_id(request)
            core.add_request(request)
            places[request.request_id] = place
        for _ in range(EMPTY_STEPS):
            for output in core.get_output().outputs:
                if output.request_id in places:
                    into = result[places.pop(output.request_id)]
                    # of each token of a prompt but the first; what follows the last is that of the token made of it
                    if first < last:
                        by_vocabulary(output.new_prompt_logprobs_tensors, into[:-1], first)
                    by_vocabulary(output.new_logprobs, into[-1:], 0)
            if not places:
                return
        raise CellFailure("error", f"vLLM gave no scores of {len(places)} sequences")

    # ---- what ran

    def cache_bytes(self, length: int) -> int:
        """Whole blocks of all layers, by vLLM's own sizes of them."""
        return cache_of(self.runner.kv_cache_config, length)

    def proof(self) -> dict:
        """See ``Engine.proof``; beside it ``engine`` (versions and settings) and ``launch``."""
        held = self.runner.kv_cache_config
        reserved = sum(part.size for part in held.kv_cache_tensors)
        engine = {
            "vllm": self.library.__version__,
            "torch": torch.__version__,
            "runner": f"{type(self.runner).__module__}.{type(self.runner).__name__}",
            "cache_reserved_bytes": reserved,
            **{key: self.variant.option(key) for key in ("length", "sequences", "cache_tokens")},
        }
        ran = launch(self.engine.vllm_config.compilation_config)
        found = model_proof(self.runner.get_model(), self.variant)
        packed = [f"matrices packed in integers by {', '.join(found['kernels'])}"] if found["kernels"] else []
        return {
            **found,
            "cache": True,
            "cache_type": cache_type(held),
            "attention": ", ".join(
                sorted({part.backend.get_name() for part in itertools.chain(*self.runner.attn_groups)})
            ),
            "launch": ran,
            "engine": engine,
            "remarks": [
                f"vLLM {engine['vllm']}, {ran['words']}, without the asynchronous scheduling that its server has",
                f"its cache reserves {reserved / 1e6:,.0f} MB, part of the peak of memory",
                *packed,
            ],
        }


def prompt(row: list[int]) -> dict:
    """Token ids as vLLM takes them."""
    return {"type": "token", "prompt_token_ids": row}
