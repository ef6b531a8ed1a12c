"""Which exporter of ONNX files takes which architecture, at parity with torch: tiny random models, on the CPU.

    python -m tests.bench.exporters run torch out.json                # the workflow's own, in its environment
    python -m tests.bench.exporters run transformers out.json         # transformers.exporters; also needs onnxscript
    python -m tests.bench.exporters run optimum out.json              # in an environment of optimum-onnx's own
    python -m tests.bench.exporters run transformers out.json GPT-2 Llama     # of these alone
    python -m tests.bench.exporters page torch.json transformers.json optimum.json > docs/export.md

Each export has a cache. Logits of eager float32 torch are compared with ONNX Runtime's over 12 and 96 tokens, and of 4
tokens that are run one by one after 92; two sequences at once.
"""

import contextlib
import inspect
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from tests import architectures, tiny

LENGTHS, STEPS, BATCH, SPEED = (12, 96), 4, 2, 200
TOLERANCE = 1e-3


def by_torch(network, folder: Path) -> None:
    from workflow.tradeoff.prepare import export, external

    export.trace(network, folder, cache=True)
    external.attach(folder / "model.onnx", network.state_dict())


def by_optimum(network, folder: Path) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(
        network, folder, task="text-generation-with-past", opset=18, no_post_process=True, do_validation=False
    )


def by_transformers(network, folder: Path) -> None:
    import onnx_ir
    from transformers import DynamicCache
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_dynamo import register_cache_pytrees_for_model
    from transformers.exporters.exporter_onnx import OnnxExporter

    width, before = 5, 3
    ids = torch.arange(BATCH * (width + before)).reshape(BATCH, -1)
    past = DynamicCache(config=network.config)
    with torch.no_grad():
        network(ids[:, :before], cache=past, use_cache=True)
    inputs = {"input_ids": ids[:, before:].clone(), "attention_mask": torch.ones_like(ids)}
    if "position_ids" in inspect.signature(network.forward).parameters:
        inputs["position_ids"] = torch.arange(before, before + width).repeat(BATCH, 1)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", min=1, max=2**20)
    kept = torch.export.Dim("past", min=0, max=2**20)
    shapes = {name: {0: batch, 1: sequence} for name in inputs}
    shapes["attention_mask"] = {0: batch, 1: torch.export.Dim.AUTO}
    register_cache_pytrees_for_model(network)
    leaves = torch.utils._pytree.SUPPORTED_NODES[type(past)].flatten_fn(past)[0]
    shapes["cache"] = [{0: batch, 2: kept} if leaf.ndim == 4 else None for leaf in leaves]
    config = OnnxConfig(
        opset_version=18, dynamic=True, dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
    )
    made = OnnxExporter().export(network, {**inputs, "cache": past, "use_cache": True}, config)
    onnx_ir.save(made.program, str(folder / "model.onnx"), external_data="model.onnx.data")


class Session:
    """An exported file in ONNX Runtime; what is no token, mask or position is the cache, in the outputs' order."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {entry.name: entry for entry in self.session.get_inputs()}
        self.cache = [name for name in self.inputs if name not in ("input_ids", "attention_mask", "position_ids")]

    def empty(self) -> list[np.ndarray]:
        shapes = [
            [BATCH, *(0 if isinstance(n, str) else n for n in self.inputs[name].shape[1:])] for name in self.cache
        ]
        return [np.zeros(shape, np.float32) for shape in shapes]

    def run(self, ids: np.ndarray, cache: list[np.ndarray], before: int) -> tuple[np.ndarray, list[np.ndarray]]:
        width = ids.shape[1]
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones((BATCH, before + width), np.int64),
            "position_ids": np.tile(np.arange(before, before + width), (BATCH, 1)),
        }
        feeds = {name: value for name, value in feeds.items() if name in self.inputs}
        logits, *kept = self.session.run(None, feeds | dict(zip(self.cache, cache, strict=True)))
        return logits, kept


def step_seconds(path: Path) -> float:
    """The fastest of SPEED steps of one token, after 64 tokens, in ONNX Runtime on one thread."""
    session, ids = Session(path), np.arange(BATCH * 64).reshape(BATCH, 64) % tiny.VOCAB
    _, cache = session.run(ids, session.empty(), 0)
    times = []
    for _ in range(SPEED):
        started = time.perf_counter()
        session.run(ids[:, :1], cache, 64)
        times.append(time.perf_counter() - started)
    return min(times)


def difference(network, path: Path) -> float:
    """The largest difference of a logit, over all lengths, whole and through the cache."""
    session, worst = Session(path), 0.0
    with contextlib.suppress(ValueError):  # some models have one way of attention
        network.set_attn_implementation("eager")
    for length in LENGTHS:
        ids = torch.arange(BATCH * length).reshape(BATCH, length) * 7919 % tiny.VOCAB
        with torch.no_grad():
            expected = network(ids, use_cache=False).logits.numpy()
        found, _ = session.run(ids.numpy(), session.empty(), 0)
        worst = max(worst, float(np.abs(found - expected).max()))
        _, cache = session.run(ids[:, :-STEPS].numpy(), session.empty(), 0)
        for at in range(length - STEPS, length):
            found, cache = session.run(ids[:, at : at + 1].numpy(), cache, at)
            worst = max(worst, float(np.abs(found[:, 0] - expected[:, at]).max()))
    return worst


def attempt(export, name: str) -> dict:
    """What one exporter does with one model: seconds of CPU, and the difference or the first line of its error."""
    import onnx

    started = time.process_time()
    try:
        network = architectures.network(name)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            started = time.process_time()
            export(network, Path(folder))
            seconds = time.process_time() - started
            nodes = len(onnx.load(Path(folder) / "model.onnx", load_external_data=False).graph.node)
            found = {"difference": difference(network, Path(folder) / "model.onnx"), "seconds": seconds, "nodes": nodes}
            return found | {"step_s": step_seconds(Path(folder) / "model.onnx")}
    except Exception as error:  # whatever a library raises is this cell of the table
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return {"error": f"{type(error).__name__}: {line}"[:160]}


EXPORTERS = {"torch": by_torch, "transformers": by_transformers, "optimum": by_optimum}
PACKAGES = ("torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "onnxscript")


def run(exporter: str, output: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {}
    for name in names or architectures.MODELS:
        found[name] = attempt(EXPORTERS[exporter], name)
        print(name, found[name], file=sys.stderr, flush=True)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package).partition("+")[0]
    output.write_text(json.dumps({"exporter": exporter, "versions": versions, "models": found}, indent=1) + "\n")


def cell(found: dict | None) -> str:
    if found is None:
        return "not tried"
    if "error" in found:
        return "no"
    if not found["difference"] <= TOLERANCE:
        return f"wrong by {found['difference']:.2g}"
    step = f"{1e6 * found['step_s']:.0f} µs"
    return f"{found['difference']:.0e}, {found['nodes']} nodes, {step}, {found['seconds']:.1f} s"


def page(paths: list[Path]) -> str:
    """docs/export.md: a column an exporter, a row a model, and below it why what fails fails."""
    results = [json.loads(path.read_text()) for path in paths]
    lines = ["# ONNX export: which exporter takes what", "", "Made by `python -m tests.bench.exporters page`.", ""]
    lines += [inspect.cleandoc(PAGE).format(tolerance=TOLERANCE), ""]
    for result in results:
        versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
        right = sum(cell(found)[0].isdigit() for found in result["models"].values())
        lines.append(f"- **{result['exporter']}**: {right} of {len(result['models'])} at parity; {versions}.")
    names = [result["exporter"] for result in results]
    lines += ["", f"| model | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for name in architectures.MODELS:
        lines.append(f"| {name} | {' | '.join(cell(result['models'].get(name)) for result in results)} |")
    lines += ["", "## Why not", ""]
    for result in results:
        for name, found in result["models"].items():
            if "error" in found:
                error = found["error"].replace("|", "\\|").replace("<", "&lt;")
                lines.append(f"- {name}, {result['exporter']}: {error}")
    return "\n".join(lines) + "\n"


PAGE = """
    The workflow exports by torch's tracing exporter, called by `prepare/export.py` (column torch). Two others can
    be run by this script, and have a column where they were: `transformers.exporters`, which stands on torch's
    newer exporter, takes mixtures of experts too, needs onnxscript, and many times as long; and optimum's, which
    calls torch's tracing exporter as the workflow does, with patches of its own, and which wants transformers
    < 4.58 and so an environment of its own. Each model is tiny, has random
    weights and is exported with a cache. A cell says by how much a logit differs at most from eager torch (more
    than {tolerance} is wrong), how many nodes the graph has, how long a step of one token takes at least in ONNX
    Runtime on one thread (of a tiny model: what its nodes cost), and CPU seconds of the export.
"""


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] == "run":
        run(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    elif len(sys.argv) > 2 and sys.argv[1] == "page":
        print(page([Path(name) for name in sys.argv[2:]]), end="")
    else:
        sys.exit(__doc__)
