"""llama.cpp's C interface, out of the shared library of the package xllamacpp, by ctypes.

The package's own Python interface serves text and gives no logits; its library exports all of llama.h. A struct's
layout belongs to one release of llama.cpp, so the release is pinned (RELEASE), and ``open_library`` compares the
defaults that the library fills in with those of that release: another layout shows as other numbers.

What is declared here is what the engine and the recipes call; names, types and order are those of llama.h and ggml.h.
"""

import collections
import ctypes
import functools
import importlib.util
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from importlib import metadata
from pathlib import Path

from workflow.tradeoff.errors import CellFailure

PACKAGE = "xllamacpp"
RELEASE = "2026.10.11549"  # its last number is llama.cpp's build
F16 = 1  # ggml type of a cache, where nobody asks for another
FLASH_AUTO, FLASH_OFF = -1, 0
WORDS = 40  # lines of the library's own log that are kept
WARNING = 3  # ggml's log level from which on a line is kept
FACTS = ("offloaded", "llama_kv_cache: size")  # what of the lines below that level is kept as well, apart

LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    """struct llama_model_params"""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(ctypes.Structure):
    """struct llama_context_params"""

    _fields_ = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        *((name, c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type", "attention_type")),
        ("flash_attn_type", c_int),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor")),
        *((name, c_float) for name in ("yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(ctypes.Structure):
    """struct llama_batch"""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


# name: (result, arguments)
FUNCTIONS = {
    "llama_backend_init": (None, ()),
    "llama_version": (c_char_p, ()),
    "llama_print_system_info": (c_char_p, ()),
    "llama_log_set": (None, (LogCallback, c_void_p)),
    "llama_supports_gpu_offload": (c_bool, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_n_ctx_train": (c_int32, (c_void_p,)),
    "llama_model_n_layer": (c_int32, (c_void_p,)),
    "llama_model_size": (c_uint64, (c_void_p,)),
    "llama_model_n_params": (c_uint64, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_n_ctx": (c_uint32, (c_void_p,)),
    "llama_n_ctx_seq": (c_uint32, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits_ith": (POINTER(c_float), (c_void_p, c_int32)),
    "llama_state_get_size": (c_size_t, (c_void_p,)),
    "llama_state_get_data": (c_size_t, (c_void_p, c_void_p, c_size_t)),
    "llama_state_set_data": (c_size_t, (c_void_p, c_void_p, c_size_t)),
    "ggml_quantize_chunk": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "ggml_quantize_requires_imatrix": (c_bool, (c_int,)),
}

# what the defaults of the pinned release are, in fields from the beginning to the end of each struct
DEFAULTS = {
    "llama_model_default_params": {
        "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "main_gpu": 0, "kv_overrides": None,
        "vocab_only": False, "use_extra_bufts": True, "no_alloc": False, "load_mtp": False,
    },
    "llama_context_default_params": {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max": 0, "n_outputs_max_per_seq": 1,
        "n_threads": 4, "n_threads_batch": 4, "rope_scaling_type": -1, "pooling_type": -1, "flash_attn_type": -1,
        "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0, "defrag_thold": -1.0, "cb_eval": None, "type_k": F16,
        "type_v": F16, "embeddings": False, "offload_kqv": True, "swa_full": True, "kv_unified": False, "n_samplers": 0,
        "ctx_other": None,
    },
}  # fmt: skip

# ggml's test of a CPU feature: the words for it in Linux's /proc/cpuinfo, of x86 and of Arm
FEATURES = {
    "avx": ("avx",), "avx2": ("avx2",), "f16c": ("f16c",), "fma": ("fma",), "bmi2": ("bmi2",),
    "avx_vnni": ("avx_vnni",), "avx512": ("avx512f",), "avx512_vbmi": ("avx512_vbmi", "avx512vbmi"),
    "avx512_vnni": ("avx512_vnni",), "avx512_bf16": ("avx512_bf16",), "amx_int8": ("amx_int8",),
    "neon": ("asimd",), "dotprod": ("asimddp",), "matmul_int8": ("i8mm",), "sve": ("sve",), "sme": ("sme",),
}  # fmt: skip

log: collections.deque[str] = collections.deque(maxlen=WORDS)
facts: collections.deque[str] = collections.deque(maxlen=WORDS)


@LogCallback
def _keep(level: int, text: bytes, _) -> None:
    words = text.decode(errors="replace").strip()
    if level < WARNING and any(fact in words for fact in FACTS):
        facts.append(words)
    elif words and level >= WARNING:
        log.append(words)


def last_words() -> str:
    """What the library said last of what went wrong; it is forgotten then."""
    words = " ".join(log)
    log.clear()
    return words


def path() -> Path:
    """The shared library of the package; its code is not imported. CellFailure where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise CellFailure("unsupported", f"llama.cpp is not installed here: the package {PACKAGE} is missing")
    folder = Path(found.origin).parent
    names = [entry for entry in sorted(folder.glob(f"{PACKAGE}*")) if entry.suffix in (".so", ".pyd", ".dylib")]
    if not names:
        raise CellFailure("unsupported", f"{folder} holds no shared library of llama.cpp: install {PACKAGE} again")
    return names[0]


@functools.cache
def open_library():
    """The library, its functions declared and its backends begun.

    Raises CellFailure when the package is missing, of another release, or fills in other defaults than that release.
    """
    file = path()
    version = metadata.version(PACKAGE)
    if version != RELEASE:
        raise CellFailure(
            "unsupported", f"{PACKAGE} is {version}, and its structs are known for {RELEASE}: install that"
        )
    library = ctypes.CDLL(str(file))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    check_layout(library)
    library.llama_log_set(_keep, None)
    library.llama_backend_init()
    return library


def check_layout(library) -> None:
    """Raise CellFailure unless the defaults that the library fills in are those of the pinned release."""
    for name, expected in DEFAULTS.items():
        found = getattr(library, name)()
        for field, value in expected.items():
            if getattr(found, field) != value:
                raise CellFailure(
                    "unsupported",
                    f"{PACKAGE}'s library gives {field} = {getattr(found, field)!r} in {name}, and {RELEASE} gives "
                    f"{value!r}: its structs have another layout, install {PACKAGE}=={RELEASE}",
                )


def _flags() -> set[str]:
    """The words in /proc/cpuinfo, the features of this machine among them; none where there is no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()


def build() -> dict:
    """What was built: package, llama.cpp's build number and version, and the CPU features by use.

    ``features`` are those that the build uses, ``unused`` those that this machine has beside, of FEATURES.
    """
    library = open_library()
    used = {name for name in FEATURES if getattr(library, f"ggml_cpu_has_{name}")()}
    here = {name for name, words in FEATURES.items() if _flags().intersection(words)}
    return {
        "package": f"{PACKAGE} {RELEASE}",
        "build": int(RELEASE.rpartition(".")[2]),
        "version": library.llama_version().decode(),
        "system": library.llama_print_system_info().decode().strip(" |"),
        "features": sorted(used),
        "unused": sorted(here - used),
    }
