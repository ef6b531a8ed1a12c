"""config/t4.yaml on tiny stand-ins of its four models' architectures, on the CPU.

study = t4.make(folder, {"gpt2": ..., "llama": ...})     folders of trained tiny models: tests/studies.py has them
"""

import shutil
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM

from tests import studies
from workflow.tradeoff.variants import VARIANTS

# what stands in for each model: its architecture, and whether its head is tied to the embedding
STANDINS = {
    "distilgpt2": "gpt2",
    "dialogpt-small": "gpt2",
    "tinyllama-1.1b": "llama-untied",
    "llama-3.2-1b": "llama",
}

# no matrix of the stand-ins has the 256 columns that a K-quant takes: the file would be of other types
TOO_NARROW = ["gguf-q4_k_m"]
# one of each way to need a GPU; the others end alike
WITHOUT_CPU = ["torch-fp16-graph", "int8-graph", "onnx-fp16-kv"]


def config() -> dict:
    return yaml.safe_load((studies.REPOSITORY / "config" / "t4.yaml").read_text())


def chosen() -> dict[str, list[str]]:
    """Variants of each model: all that run on the CPU on a GPT-2, and again on a Llama, tied and untied by turns."""
    able = [name for name in config()["variants"] if "cpu" in VARIANTS[name].devices and name not in TOO_NARROW]
    baseline, *others = able
    assert baseline == config()["baseline"]
    return {
        "distilgpt2": [*able, *WITHOUT_CPU],
        "dialogpt-small": [baseline],
        "tinyllama-1.1b": [baseline, *others[::2]],
        "llama-3.2-1b": [baseline, *others[1::2], WITHOUT_CPU[0]],
    }


def untie(source: Path, folder: Path) -> None:
    """Write the Llama of ``source`` with a head of its own, equal to the embedding, into ``folder``."""
    shutil.copytree(source, folder)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    model.save_pretrained(folder)


def make(folder: Path, trained: Path) -> studies.Study:
    """A checkout in ``folder`` whose config/tiny.yaml is config/t4.yaml with sources, device and lengths replaced.

    trained: a folder with tiny models of the names ``gpt2`` and ``llama``.
    """
    studies.checkout(folder)
    inputs = folder / "inputs"
    for kind in ("gpt2", "llama"):
        shutil.copytree(trained / kind, inputs / kind)
    untie(inputs / "llama", inputs / "llama-untied")
    settings = config()
    variants = chosen()
    for name, model in settings["models"].items():
        kept = {key: model[key] for key in ("dtype", "license")}
        settings["models"][name] = {
            "source": "local",
            "path": f"inputs/{STANDINS[name]}",
            "variants": variants[name],
            **kept,
        }
    settings["corpus"] = {
        "name": "bridge",
        "source": "local",
        "path": "inputs/corpus.raw",
        "sha256": studies.corpus(inputs / "corpus.raw"),
        "format": "wikitext",
    }
    settings |= {"study": "tiny", "device": "cpu", "threads": 1}
    settings["measure"] |= {
        "pairs": 2,
        "prompt_tokens": 8,
        "new_tokens": 4,
        "study_runs": 1,
        "budget_s": 1,
        "lost_share": 9,
    }
    settings["evaluate"] |= {
        "conventions": ["windows-64", "study"],
        "max_tokens": 512,
        "divergence_tokens": 128,
        "generate_tokens": 2,
    }
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return studies.Study(folder)
