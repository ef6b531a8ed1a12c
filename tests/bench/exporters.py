"""Which exporter of ONNX files takes which architecture, at parity with torch: tiny random models, on the CPU.

    python -m tests.bench.exporters run torch out.json                # the workflow's own, in its environment
    python -m tests.bench.exporters run transformers out.json         # transformers.exporters; also needs onnxscript
    python -m tests.bench.exporters run optimum out.json              # in an environment of optimum-onnx's own
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
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

LENGTHS, STEPS, BATCH, VOCAB, CONTEXT = (12, 96), 4, 2, 320, 512
TOLERANCE = 1e-3
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
GPT2 = {"vocab_size": VOCAB, "n_positions": CONTEXT, "n_embd": 64, "n_layer": 2, "n_head": 4}
MODELS = {
    "GPT-2": ("gpt2", GPT2),
    "Llama": ("llama", SMALL),
    "Mistral, window of 16": ("mistral", {**SMALL, "sliding_window": 16}),
    "Mixtral": ("mixtral", {**SMALL, **EXPERTS}),
    "Qwen2": ("qwen2", SMALL),
    "Qwen3": ("qwen3", {**SMALL, "head_dim": 16}),
    "Qwen3-MoE": ("qwen3_moe", {**SMALL, **EXPERTS, "head_dim": 16}),
    "Qwen3-Next": ("qwen3_next", {
        **SMALL, **EXPERTS, "head_dim": 16, "shared_expert_intermediate_size": 64, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    }),
    "Gemma 2": ("gemma2", {**SMALL, "head_dim": 16, "sliding_window": 16}),
    "Gemma 3": ("gemma3_text", {**SMALL, "head_dim": 16, "sliding_window": 16}),
    "Phi-3": ("phi3", SMALL),
    "Phi-3, longrope": ("phi3", {**SMALL, "rope_scaling": LONGROPE, "original_max_position_embeddings": 64}),
    "OPT": ("opt", {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    "GPT-NeoX": ("gpt_neox", SMALL),
    "GPT-J": ("gptj", {**GPT2, "rotary_dim": 8}),
    "Falcon": ("falcon", SMALL),
    "BLOOM": ("bloom", {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "MPT": ("mpt", {"vocab_size": VOCAB, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT}),
    "StableLM": ("stablelm", SMALL),
    "OLMo2": ("olmo2", SMALL),
    "Granite": ("granite", SMALL),
    "GraniteMoE": ("granitemoe", {**SMALL, **EXPERTS}),
    "Cohere": ("cohere", SMALL),
    "SmolLM3": ("smollm3", SMALL),
    "DeepSeek-V3": ("deepseek_v3", {
        **SMALL, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1, "moe_intermediate_size": 64, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
    }),
    "gpt-oss": ("gpt_oss", {**SMALL, **EXPERTS, "head_dim": 16, "sliding_window": 16}),
    "Mamba": ("mamba", {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}),
}  # fmt: skip


def build(kind: str, settings: dict):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**settings)
    # as the study runs it: sdpa where the model has it
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


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
        options.log_severity_level = 3
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


def difference(network, path: Path) -> float:
    """The largest difference of a logit, over all lengths, whole and through the cache."""
    session, worst = Session(path), 0.0
    with contextlib.suppress(ValueError):  # some models have one way of attention
        network.set_attn_implementation("eager")
    for length in LENGTHS:
        ids = torch.arange(BATCH * length).reshape(BATCH, length) * 7919 % VOCAB
        with torch.no_grad():
            expected = network(ids, use_cache=False).logits.numpy()
        found, _ = session.run(ids.numpy(), session.empty(), 0)
        worst = max(worst, float(np.abs(found - expected).max()))
        _, cache = session.run(ids[:, :-STEPS].numpy(), session.empty(), 0)
        for at in range(length - STEPS, length):
            found, cache = session.run(ids[:, at : at + 1].numpy(), cache, at)
            worst = max(worst, float(np.abs(found[:, 0] - expected[:, at]).max()))
    return worst


def attempt(export, kind: str, settings: dict) -> dict:
    """What one exporter does with one model: seconds of CPU, and the difference or the first line of its error."""
    import onnx

    started = time.process_time()
    try:
        network = build(kind, settings)
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            started = time.process_time()
            export(network, Path(name))
            seconds = time.process_time() - started
            nodes = len(onnx.load(Path(name) / "model.onnx", load_external_data=False).graph.node)
            return {"difference": difference(network, Path(name) / "model.onnx"), "seconds": seconds, "nodes": nodes}
    except Exception as error:  # whatever a library raises is this cell of the table
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return {"error": f"{type(error).__name__}: {line}"[:160]}


EXPORTERS = {"torch": by_torch, "transformers": by_transformers, "optimum": by_optimum}
PACKAGES = ("torch", "transformers", "onnxruntime", "optimum", "optimum-onnx", "onnxscript")


def run(exporter: str, output: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {}
    for name, (kind, settings) in MODELS.items():
        found[name] = attempt(EXPORTERS[exporter], kind, settings)
        print(name, found[name], file=sys.stderr, flush=True)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package).partition("+")[0]
    output.write_text(json.dumps({"exporter": exporter, "versions": versions, "models": found}, indent=1) + "\n")


def cell(found: dict) -> str:
    if "error" in found:
        return "no"
    if not found["difference"] <= TOLERANCE:
        return f"wrong by {found['difference']:.2g}"
    return f"{found['difference']:.0e}, {found['nodes']} nodes, {found['seconds']:.1f} s"


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
    for name in MODELS:
        lines.append(f"| {name} | {' | '.join(cell(result['models'][name]) for result in results)} |")
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
    newer exporter, and optimum's, which calls torch's tracing exporter as the workflow does, with patches of its
    own, and which wants transformers < 4.58 and so an environment of its own. Each model is tiny, has random
    weights and is exported with a cache. A cell says by how much a logit differs at most from eager torch (more
    than {tolerance} is wrong), how many nodes the graph has, and CPU seconds of the export.
"""


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "run":
        run(sys.argv[2], Path(sys.argv[3]))
    elif len(sys.argv) > 2 and sys.argv[1] == "page":
        print(page([Path(name) for name in sys.argv[2:]]), end="")
    else:
        sys.exit(__doc__)
