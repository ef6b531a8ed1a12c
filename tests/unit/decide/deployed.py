"""What the tests of ``deploy/`` share: results of a tiny model whose cells were measured, and answers deployed."""

from pathlib import Path

import pandas as pd
from transformers import AutoTokenizer

from tests import synthetic, tiny
from workflow.tradeoff import engines
from workflow.tradeoff.decide import deploy
from workflow.tradeoff.evaluate import generation
from workflow.tradeoff.files import write_json, write_manifest
from workflow.tradeoff.prepare import export
from workflow.tradeoff.variants import VARIANTS

TEMPLATES = Path(__file__).parents[3] / "report" / "deploy"
TEMPLATE = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</end>{% endfor %}<assistant>"
ROW = {
    "status": "ok", "baseline": "torch-fp32", "device": "cpu", "threads": 1, "decode_tokens_per_s": 20.0,
    "speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1, "memory_mb": 3.5, "peak_mb": 50.0, "load_peak_mb": 60.0,
}  # fmt: skip
NEW = 6


def results_of(results, served):
    """``results`` of a tiny model with a chat template, and what the engines of ``served`` wrote to its prompt."""
    model = tiny.build(results / "models" / "llama", "llama")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    write_manifest(model, source={}, license="apache-2.0")
    if "onnx-fp32-kv" in served:
        output = results / "artifacts/llama/onnx-fp32-kv"
        export.main(["--model-folder", str(model), "--cache", "--threads", "1", "--output", str(output)])
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello?"}], add_generation_prompt=True)
    ids = ids if isinstance(ids, list) else ids["input_ids"]
    for name in served:
        engine = engines.load(VARIANTS[name], deploy.artifact(results, "llama", VARIANTS[name]), model, "cpu", 1)
        tokens = generation.greedy(engine, ids, NEW, {256})
        written = {"prompt": "Hello?", "text": tokenizer.decode(tokens), "token_ids": tokens}
        prompting = generation.prompting(tokenizer, "always", True, {256})
        write_json(results / f"quality/llama/{name}.json", {"generated": [written], "prompting": prompting})
    return results


def deployed(results, names, **more):
    """Deploy variants that won a scenario each."""
    rows = [{"model": "llama", "variant": name, **ROW, **more} for name in names]
    asked = {"objective": "speed", "limits": "none", "mind": None}
    won = [{"scenario": f"s-{name}", "model": "llama", "winner": name, **asked} for name in names]
    tables = results / "tables"
    tables.mkdir(exist_ok=True)
    columns = ["ttft_ms", "ttft_ms_low", "ttft_ms_high", "degradation_pct", "degradation_low_pct"]
    columns += ["degradation_high_pct", "decode_tokens_per_s_low", "decode_tokens_per_s_high", "reason"]
    pd.DataFrame(rows).reindex(columns=[*rows[0], *columns]).to_csv(tables / "summary.csv", index=False)
    write_json(tables / "decision.json", {"machine": "Test CPU, 1 thread", "scenarios": won})
    write_json(results / "environment.json", synthetic.ENVIRONMENT)
    flags = ["--study", "tiny", "--tables", tables, "--results", results, "--output", results / "deploy"]
    flags += ["--environment", results / "environment.json", "--templates", TEMPLATES]
    deploy.main(list(map(str, flags)))
    return results / "deploy"
