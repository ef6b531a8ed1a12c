"""A GGUF file in llama.cpp: token ids in, logits out. One model, one context that scores and one that decodes."""

import ctypes
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch

from workflow.tradeoff.engines import llamacpp_library as library
from workflow.tradeoff.engines.llamacpp_proof import file_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.variants import Variant

FILE = "model.gguf"
STEP = 512  # tokens that one pass computes at once: llama.cpp's own default of n_ubatch
MARGIN = 256  # tokens of room that a cache is given beyond a prompt, where nobody reserved more
ALL_LAYERS = -1
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")
KEPT_AS = re.compile(r"K \((\w+)\):.* V \((\w+)\):")
PIECE = 32  # tokens that a score through a cache of fewer bits appends at once


@dataclass(frozen=True)
class Cache:
    """How keys and values are kept: ggml's name of the type, and llama.cpp's word for the kernel that reads them."""

    type: str = "f16"
    flash: int = library.FLASH_AUTO

    @property
    def kind(self) -> gguf.GGMLQuantizationType:
        return gguf.GGMLQuantizationType[self.type.upper()]

    @property
    def rounded(self) -> bool:
        """Whether what is kept has fewer bits than what the kernels compute with."""
        return self.type not in ("f32", "f16", "bf16")

    def bytes(self, values: int) -> int:
        """Bytes of so many numbers, the scales of their blocks included."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return values * size // block


DEFAULT = Cache()  # as llama.cpp has it by itself
EXACT = Cache("f32", library.FLASH_OFF)  # to compare with torch


def load(variant: Variant, artifact: Path, model: Path, device: str, threads: int) -> "LlamaEngine":
    torch.set_num_threads(threads)
    layers = variant.option("gpu_layers", ALL_LAYERS) if device == "cuda" else 0
    cache = Cache(variant.options["cache_type"])
    return LlamaEngine(artifact / FILE, variant.bits or None, device, threads, layers, cache)


class Context:
    """A llama_context of ``sequences`` sequences with room for ``length`` tokens each, and its batch arrays."""

    def __init__(self, lib, model, vocabulary: int, sequences: int, length: int, threads: int, cache: Cache):
        self.lib, self.vocabulary, self.sequences = lib, vocabulary, sequences
        wanted = lib.llama_context_default_params()
        wanted.n_seq_max = sequences
        wanted.n_ctx = sequences * -(-length // 256) * 256  # llama.cpp pads to this by itself, and says so each time
        wanted.n_batch = sequences * length
        wanted.n_ubatch = min(STEP, wanted.n_batch)
        wanted.n_outputs_max = wanted.n_batch
        wanted.n_outputs_max_per_seq = length
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.type_k = wanted.type_v = int(cache.kind)
        wanted.flash_attn_type = cache.flash
        library.log.clear()
        library.facts.clear()
        self.handle = lib.llama_init_from_model(model, wanted)
        if not self.handle:
            status, kept = ("unsupported", f", keys and values in {cache.type}") if cache.rounded else ("error", "")
            raise CellFailure(
                status, f"llama.cpp made no context of {wanted.n_ctx} tokens{kept}: {library.last_words()}"
            )
        found = {name for words in library.facts if (match := KEPT_AS.search(words)) for name in match.groups()}
        self.cache_type = ", ".join(sorted(found))
        self.length = length
        self.held = 0
        room = wanted.n_batch
        self.arrays = {
            "token": np.zeros(room, np.int32),
            "pos": np.zeros(room, np.int32),
            "n_seq_id": np.ones(room, np.int32),
            "logits": np.zeros(room, np.int8),
        }
        self.names = (ctypes.c_int32 * sequences)(*range(sequences))
        self.seq_id = (ctypes.POINTER(ctypes.c_int32) * room)()
        self.ordered = 0  # tokens a sequence that seq_id is laid out for
        kinds = {np.dtype(np.int32): ctypes.c_int32, np.dtype(np.int8): ctypes.c_int8}
        self.batch = library.Batch(0, None, None, None, None, self.seq_id, None)
        for name, array in self.arrays.items():
            setattr(self.batch, name, array.ctypes.data_as(ctypes.POINTER(kinds[array.dtype])))

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.handle), True)
        self.held = 0

    def run(self, ids: np.ndarray, first: int) -> np.ndarray:
        """Append ids (B, T) to the B sequences; logits (B, T - first, V), a copy, of positions ``first`` and on."""
        count, length = ids.shape
        self.batch.n_tokens = count * length
        self.arrays["token"][: count * length] = ids.reshape(-1)
        self.arrays["pos"][: count * length] = np.tile(np.arange(self.held, self.held + length), count)
        asked = np.tile(np.arange(length) >= first, count)
        self.arrays["logits"][: count * length] = asked
        self._order(length)
        code = self.lib.llama_decode(self.handle, self.batch)
        if code:
            raise CellFailure("error", f"llama_decode answered {code}: {library.last_words() or 'without a word'}")
        self.held += length
        result = np.empty((count * (length - first), self.vocabulary), np.float32)
        for row, place in enumerate(np.flatnonzero(asked)):
            pointer = self.lib.llama_get_logits_ith(self.handle, int(place))
            result[row] = np.ctypeslib.as_array(pointer, (self.vocabulary,))
        return result.reshape(count, length - first, self.vocabulary)

    def _order(self, length: int) -> None:
        """Lay ``seq_id`` out for ``length`` tokens of each sequence, one sequence after the other."""
        if length == self.ordered:
            return
        step = ctypes.sizeof(ctypes.c_int32)
        for row in range(self.sequences):
            name = ctypes.cast(ctypes.addressof(self.names) + row * step, ctypes.POINTER(ctypes.c_int32))
            self.seq_id[row * length : (row + 1) * length] = [name] * length
        self.ordered = length

    def close(self) -> None:
        self.lib.llama_free(self.handle)
        self.handle = None


class LlamaEngine:
    """cache: how keys and values are kept, by llama.cpp's defaults where nobody says otherwise."""

    def __init__(
        self, file: Path, bits: int | None, device: str, threads: int, gpu_layers: int, cache: Cache = DEFAULT
    ):
        self.lib = library.open_library()
        if device == "cuda" and not self.lib.llama_supports_gpu_offload():
            raise CellFailure("unsupported", f"this build of llama.cpp ({library.PACKAGE}'s wheel) has no GPU backend")
        self.file, self.bits, self.threads, self.cache = file, bits, threads, cache
        self.device = torch.device(device)
        library.log.clear()
        library.facts.clear()
        wanted = self.lib.llama_model_default_params()
        wanted.n_gpu_layers = gpu_layers
        self.model = self.lib.llama_model_load_from_file(str(file).encode(), wanted)
        if not self.model:
            raise CellFailure("error", f"llama.cpp does not load {file.name}: {library.last_words()}")
        self.offloaded = next((found for words in library.facts if (found := OFFLOADED.search(words))), None)
        self.context = self.lib.llama_model_n_ctx_train(self.model)
        self.vocabulary = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        self.scorer: Context | None = None
        self.decoder: Context | None = None
        self.reserved = 0

    def _new(self, sequences: int, length: int) -> Context:
        return Context(self.lib, self.model, self.vocabulary, sequences, length, self.threads, self.cache)

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, T), one sequence a row; greedy next tokens (B, 1)."""
        count, length = ids.shape
        needed = max(self.reserved, length + 1)
        held = self.decoder
        if held is None or held.sequences != count or held.length < needed:
            if held:
                held.close()
            self.decoder = self._new(count, min(max(needed, length + MARGIN), max(self.context, needed)))
        self.decoder.clear()
        return self._step(ids.numpy(), length - 1)

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        if self.decoder.held == self.decoder.length:
            self._grow()
        return self._step(token.numpy(), 0)

    def _step(self, ids: np.ndarray, first: int) -> torch.Tensor:
        logits = self.decoder.run(ids, first)
        return torch.from_numpy(logits[:, -1].argmax(-1)[:, None])

    def _grow(self) -> None:
        """Move the sequences into a context with twice the room: llama.cpp's own does not grow."""
        old = self.decoder
        size = self.lib.llama_state_get_size(old.handle)
        state = ctypes.create_string_buffer(size)
        self.lib.llama_state_get_data(old.handle, state, size)
        self.decoder = self._new(old.sequences, 2 * old.length)
        self.lib.llama_state_set_data(self.decoder.handle, state, size)
        self.decoder.held = old.held
        old.close()

    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """One sequence after the other: each row is computed as it would be alone.

        Where the cache has fewer bits, a row is appended PIECE by PIECE, so that what comes before a token is read
        out of the cache, as it is when the model answers a prompt.
        """
        count, length = ids.shape
        piece = PIECE if self.cache.rounded else length
        if self.scorer is None or self.scorer.length < length:
            if self.scorer:
                self.scorer.close()
            self.scorer = self._new(1, length)
        result = torch.empty((count, length - first, self.vocabulary), dtype=torch.float32)
        for row in range(count):
            self.scorer.clear()
            for start in range(0, length, piece):
                part = ids[row : row + 1, start : start + piece].numpy()
                skipped = min(max(0, first - start), part.shape[1])
                logits = torch.from_numpy(self.scorer.run(part, skipped)[0])
                result[row, start + skipped - first :][: len(logits)] = logits
        return result.to(self.device)

    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        self.reserve(ids.shape[1] + new_tokens)
        tokens = [ids, self.prefill(ids)]
        while len(tokens) <= new_tokens:
            tokens.append(self.decode(tokens[-1]))
        return torch.cat(tokens, dim=1)

    def reserve(self, length: int) -> None:
        self.reserved = max(self.reserved, length)

    def synchronize(self) -> None:
        """llama.cpp has waited by the time its logits have been read."""

    def cache_bytes(self, length: int) -> int:
        """Keys and values of so many tokens, as llama.cpp keeps them."""
        return length * self.cache.bytes(self.held["cache_values"])

    @functools.cached_property
    def held(self) -> dict:
        return file_proof(self.file, self.bits)

    def proof(self) -> dict:
        offload = {"layers": int(self.offloaded[1]), "of": int(self.offloaded[2])} if self.offloaded else None
        context = self.decoder or self.scorer
        if context is None:
            context = self.scorer = self._new(1, STEP)
        where = self.device.type if offload is None or offload["layers"] == offload["of"] else "cpu"
        build = library.build()
        return self.held | {
            "remarks": remarks(self.held, build),
            "parameters": {f"{name}@{where}": count for name, count in self.held["weights_by_type"].items()},
            "loaded_bytes": self.lib.llama_model_size(self.model),
            "offloaded": offload,
            "engine": build,
            "cache": True,
            "cache_type": context.cache_type,
        }


def remarks(held: dict, build: dict) -> list[str]:
    """What must stand beside the figures: what a mix consists of, and what of the machine the build does not use."""
    said = []
    if len(held["linear_by_type"]) > 1:
        parts = sorted(held["linear_by_type"].items(), key=lambda pair: -pair[1])
        shares = ", ".join(f"{kind} {count / held['linear_weights']:.0%}" for kind, count in parts)
        said.append(f"{held['bits_per_weight']:.1f} bits a weight ({shares})")
    if build["unused"]:
        said.append(
            f"llama.cpp's build {build['build']} does not use what this machine has: {', '.join(build['unused'])}; "
            "one that does may be faster"
        )
    return said
