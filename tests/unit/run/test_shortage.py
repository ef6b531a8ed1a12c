"""Allocations that fail, most of them for real in a process with a limit: the bytes needed, the bytes available."""

import re
import resource
import sys

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
import torch
from onnx import TensorProto, helper

from tests import tiny
from workflow.tradeoff.run import fork, shortage
from workflow.tradeoff.variants import VARIANTS

LEFT = 300_000_000  # bytes of address space that a limited process has left
MUCH = 2**30  # bytes that do not fit in there


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("model") / "gpt2")


def session(arena: bool):
    """An ONNX Runtime session that expands a number to any size, and adds it up."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"]), helper.make_node("ReduceSum", ["y"], ["z"])],
        "expand",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_cpu_mem_arena = 1, 4, arena
    return ort.InferenceSession(model.SerializeToString(), options)


def expand(arena: bool, size: int):
    session(arena).run(None, {"x": np.ones(1, np.float32), "shape": np.array([size // 4])})


# what takes memory, and the bytes that its error names
REAL = {
    "torch": (lambda: torch.empty(MUCH, dtype=torch.uint8), MUCH),
    "NumPy": (lambda: np.ones(MUCH, np.uint8), MUCH),
    "Python": (lambda: bytearray(MUCH), None),
    "ONNX Runtime": (lambda: expand(True, 2**50), 2**50),
    "ONNX Runtime without its arena": (lambda: expand(False, MUCH), None),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_allocation_that_fails(folder, name):
    allocate, size = REAL[name]

    def limited(argv):
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + LEFT,) * 2)
        try:
            allocate()
        except Exception as error:
            failure = shortage.of(error, VARIANTS["torch-fp32"], folder, "cpu")
            print(failure.status, failure.reason, file=sys.stderr)

    code, text = fork.run(limited, [])
    weights = (folder / "model.safetensors").stat().st_size
    needed = f"the weights alone need {weights:,} bytes" if size is None else f"one allocation needed {size:,} bytes"
    found = re.match(rf"out_of_memory {needed}, ([\d,]+) bytes were available \(the address space of ulimit -v", text)
    assert code == 0 and found, text
    assert 0 < int(found[1].replace(",", "")) <= LEFT


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.00 GiB", 5 * 2**29),
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has", 20 * 2**20),
        ("bfc_arena.cc:376 Available memory of 5 is smaller than requested bytes of 3221225472", 3221225472),
        ("bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 1024", 1024),
        ("CUDA failure 2: out of memory ; GPU=0", None),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", None),
        ("[Errno 12] Cannot allocate memory", None),
    ],
)
def test_the_words_of_other_allocators(words, size):
    assert shortage.says_so(words) and shortage.needed_bytes(words) == size


@pytest.mark.parametrize(
    "words", ["shape mismatch", "out of resource: shared memory, Required: 1, Hardware limit: 0", "index out of range"]
)
def test_other_errors_are_not_of_memory(folder, words):
    assert shortage.of(RuntimeError(words), VARIANTS["torch-fp32"], folder, "cpu") is None


@pytest.mark.parametrize(
    ("error", "variant", "where"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "torch-fp16", "the card"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 1"), "onnx-int8-kv", "the card"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 1"), "onnx-int8-cpu", "the host"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "torch-fp16", "the host"),
        (MemoryError(), "torch-fp16", "the host"),
    ],
)
def test_on_a_gpu_the_memory_is_that_of_the_side_that_ran_out(folder, monkeypatch, error, variant, where):
    monkeypatch.setattr(shortage, "on_gpu", lambda: shortage.Available(5, "the card"))
    monkeypatch.setattr(shortage, "on_host", lambda: shortage.Available(5, "the host"))
    assert f"5 bytes were available ({where})" in shortage.of(error, VARIANTS[variant], folder, "cuda").reason


def test_a_gpu_that_answers_no_more(monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert str(shortage.on_gpu()) == "how many were available is not known (the GPU answers no more)"


@pytest.mark.parametrize(("variant", "share"), [("torch-fp32", 1), ("torch-fp16", 2), ("bnb-int8", 4), ("bnb-nf4", 8)])
def test_the_weights_alone_in_the_variants_precision(folder, variant, share):
    size = (folder / "model.safetensors").stat().st_size // share
    assert shortage.least(VARIANTS[variant], folder) == f"the weights alone need {size:,} bytes"


def test_the_weights_of_an_onnx_artifact_are_its_files(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"1" * 1000)
    (tmp_path / "model.onnx.data").write_bytes(b"1" * 1000)
    (tmp_path / "manifest.json").write_text("{}")
    assert shortage.least(VARIANTS["onnx-int8"], tmp_path) == "the weights alone need 2,000 bytes"


def control_groups(root, folders, limit, used, cache):
    for folder, (most, now, inactive) in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / limit).write_text(f"{most}\n")
        (root / folder / used).write_text(f"{now}\n")
        (root / folder / "memory.stat").write_text(f"anon 5\n{cache} {inactive}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("line", "names", "folders", "left"),
    [
        ("0::/jobs/one", V2, {"jobs/one": (900, 700, 100), "jobs": (9000, 8800, 0)}, [300, 200]),
        ("0::/jobs/one", V2, {"jobs/one": ("max", 700, 100)}, []),
        ("4:memory:/jobs/one", V1, {"memory/jobs/one": (900, 1000, 0), "memory": (2000, 1000, 10)}, [0, 1010]),
        ("4:memory:/host/name/seen/outside", V1, {"memory": (900, 700, 0)}, [200]),
        ("2:cpu:/jobs/one", V1, {"memory/jobs/one": (900, 700, 0)}, []),
    ],
)
def test_control_groups_up_to_the_top(tmp_path, line, names, folders, left):
    root, table = tmp_path / "cgroup", tmp_path / "table"
    root.mkdir()
    control_groups(root, folders, *names)
    table.write_text(f"{line}\n")
    assert [found.size for found in shortage._control_groups(root, table)] == left


def test_this_machine_has_memory():
    found = shortage.on_host()
    assert 0 < found.size <= psutil.virtual_memory().total and found.where
