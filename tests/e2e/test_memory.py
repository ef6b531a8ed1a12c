"""A memory cap on a study: the cell that does not fit says so with its bytes, and the next one has its figures."""

import json
import re

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tests import planned, studies
from workflow.tradeoff.fetch.sources import byte_tokenizer

VOCABULARY = 1_000_000
PROMPT = 1_200
CAP = 4 << 20  # KiB of address space
VARIANTS = ["torch-fp32", "onnx-fp32", "torch-bf16"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> studies.Study:
    """A tiny model with a vocabulary so wide that the logits of a whole prompt, which ONNX gives, take 4.8 GB."""
    folder = tmp_path_factory.mktemp("memory") / "checkout"
    studies.checkout(folder)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 2048}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=True)).save_pretrained(
            folder / "inputs/wide"
        )
    byte_tokenizer.save(folder / "inputs/wide", vocab_size=VOCABULARY, context=2048)
    config = {
        "study": "tiny",
        "device": "cpu",
        "threads": 1,
        "models": {"wide": {"source": "local", "path": "inputs/wide", "variants": VARIANTS}},
        "corpus": {
            "name": "bridge",
            "source": "local",
            "path": "inputs/corpus.raw",
            "sha256": studies.corpus(folder / "inputs/corpus.raw"),
            "format": "wikitext",
        },
        "measure": {"pairs": 2, "turns": 1, "prompt_tokens": PROMPT, "new_tokens": 3, "budget_s": 1, "lost_share": 9},
        "evaluate": {
            "conventions": ["windows-64"],
            "max_tokens": 64,
            "batch_tokens": 64,
            "divergence_tokens": 0,
            "generate_tokens": 1,
        },
    }
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump(config))
    return studies.Study(folder)


def test_a_cell_that_does_not_fit_and_the_one_after_it(study):
    text = study.snakemake("--dry-run", "--nocolor", "--until", "measure").stdout
    plan = sorted(planned.jobs(text), key=lambda job: job.rule == "measure")
    cells = {job.words[job.words.index("--variant") + 1]: job for job in plan[-len(VARIANTS) :]}
    plan[-len(VARIANTS) :] = [cells[name] for name in VARIANTS]
    planned.run(study.folder, plan, prefix=["bash", "-c", f'ulimit -v {CAP}; exec "$@"', "bash"])
    found = {name: json.loads((study.results / f"speed/wide/{name}.json").read_text()) for name in VARIANTS}
    assert {name: cell["status"] for name, cell in found.items()} == {
        "torch-fp32": "ok",
        "onnx-fp32": "out_of_memory",
        "torch-bf16": "ok",
    }
    needed, available = re.match(
        rf"one allocation needed ([\d,]+) bytes, ([\d,]+) bytes were available \(the address space of ulimit -v, "
        rf"{CAP * 1024:,}\)",
        found["onnx-fp32"]["reason"],
    ).groups()
    assert int(needed.replace(",", "")) == PROMPT * VOCABULARY * 4
    assert 0 < int(available.replace(",", "")) < CAP * 1024
