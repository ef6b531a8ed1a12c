"""How large a study's models are, before they are there: by a manifest, the config, or a name."""

import re
from collections.abc import Mapping
from pathlib import Path

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import needs
from workflow.tradeoff.variants import Variant

# bits of a weight in a GGUF file, scales among them, by the type in its name
GGUF_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8": 8.5, "Q6": 6.6, "Q5": 5.6, "Q4": 4.8, "Q3": 3.8, "Q2": 3.0}
STATED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TIED = 1.2  # an export keeps a tied head as a matrix of its own


def of_model(name: str, entry: Mapping, results: Path) -> tuple[needs.Size, str]:
    """Size of a model, and how it is known. UserError when nothing says it: the config key ``parameters`` does."""
    manifest = results / "models" / name / "manifest.json"
    if manifest.is_file():
        return needs.of_manifest(manifest), "fetched"
    if "parameters" in entry:
        return _size(entry["parameters"], entry), "config"
    if entry["source"] == "random":
        return of_architecture(entry["architecture"], entry), "architecture"
    if entry["source"] == "local" and Path(entry["path"]).exists():
        path = Path(entry["path"])
        files = [path] if path.is_file() else sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
        stored = sum(file.stat().st_size for file in files)
        return _size(round(stored * 8 / _bits(path.name, entry)), entry), "its file"
    if "bytes" in entry:
        return _size(round(entry["bytes"] * 8 / _bits(entry.get("member", ""), entry)), entry), "its file"
    if stated := STATED.search(f"{entry.get('repo', '')} {name}"):
        return _size(round(float(stated[1]) * {"b": 1e9, "m": 1e6}[stated[2].lower()]), entry), "its name"
    raise UserError(f"config key models.{name}.parameters is missing: add it, nothing else says how large the model is")


def of_architecture(stated: Mapping, entry: Mapping) -> needs.Size:
    """Size of a transformers config: counted on the meta device, no weights are made."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = {key: value for key, value in stated.items() if key != "model_type"}
    try:
        config = AutoConfig.for_model(stated["model_type"], **known)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"transformers builds no model of the architecture {dict(stated)}: {error}") from error
    count = sum(parameter.numel() for parameter in model.parameters())
    return needs.Size(count, config.get_text_config().vocab_size, count * BYTES.get(entry.get("dtype", "auto"), 4))


def download(entry: Mapping, size: needs.Size) -> int:
    """Bytes that come over the network: none of a local folder or of random weights."""
    if entry["source"] in ("local", "random"):
        return 0
    return entry.get("bytes", size.stored)


def of_artifact(variant: Variant, size: needs.Size) -> tuple[int, int]:
    """Bytes that come over the network for what a variant runs, and bytes of it on disk."""
    if variant.checkpoint:
        stored = _published(variant.checkpoint, size)
        return download(variant.checkpoint, needs.Size(size.parameters, size.vocabulary, stored)), stored
    if variant.family == "gguf":
        # the model's own file is linked; of the others, the type says what a weight takes, scales among it
        bits = 0 if variant.recipe["type"] == "source" else _bits(str(variant.recipe["type"]), {})
        return 0, round(size.parameters * bits / 8)
    bits = variant.recipe.get("average_bits") or variant.bits
    return 0, round(TIED * size.parameters * bits / 8)


def _published(entry: Mapping, size: needs.Size) -> int:
    """Bytes of a checkpoint that someone published: of its files, as stated, by the type in its name, or of 16 bits."""
    if entry["source"] == "local" and Path(entry["path"]).exists():
        path = Path(entry["path"])
        return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()) if file.is_file())
    name = next((str(entry[key]) for key in ("file", "member", "repo", "path") if key in entry), "")
    return entry.get("bytes") or round(size.parameters * _bits(name, {}) / 8)


def _bits(name: str, entry: Mapping) -> float:
    """Bits of a weight in a file, by the type in a GGUF's name, or as the config has it kept."""
    found = next(
        (bits for kind, bits in GGUF_BITS.items() if re.search(rf"(?<![A-Z]){kind}(?!\d)", name.upper())), None
    )
    return found or 8.0 * BYTES.get(entry.get("dtype", "auto"), 2)


def _size(parameters: int, entry: Mapping) -> needs.Size:
    # of a GGUF, float32 is kept
    default = 4 if str(entry.get("member", entry.get("path", ""))).endswith(".gguf") else 2
    stored = parameters * BYTES.get(entry.get("dtype", "auto"), default)
    return needs.Size(parameters, needs.VOCABULARY, stored)
