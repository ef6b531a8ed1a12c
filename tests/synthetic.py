"""Speed, quality and manifest files as the stages write them, with known truths and planted faults.

``write(folder)`` makes a study of M models × V variants in milliseconds: no model is run. What stands in a cell's files
is made in ``synthetic_cells``.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.synthetic_cells import CORPUS, ENVIRONMENT, MODELS, digest, quality, speed, under_load
from workflow.tradeoff.files import sha256, write_json
from workflow.tradeoff.loaded import corpus_digest

CPU_VARIANTS = (
    "torch-fp32",
    "torch-bf16",
    "bnb-int8",
    "bnb-nf4",
    "onnx-fp32",
    "onnx-int8",
    "onnx-fp32-kv",
    "onnx-int8-kv",
    "onnx-int4-kv",
)

GPU_VARIANTS = (
    "torch-fp16",
    "bnb-int8",
    "bnb-int8-t0",
    "bnb-nf4",
    "torch-fp16-graph",
    "bnb-int8-t0-graph",
    "bnb-nf4-graph",
    "int8-graph",
)
# further loads: name, sequences, prompt tokens, new tokens
LOADS = (("4x32+32", 4, 32, 32), ("16x32+32", 16, 32, 32), ("1x1024+32", 1, 1024, 32))


@dataclass
class Study:
    """Where the files of a synthetic study lie."""

    folder: Path
    speed: list[Path] = field(default_factory=list)
    quality: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    environment: Path | None = None
    corpus: Path | None = None

    def flags(self, output: Path) -> list[str]:
        """The flags of summarize."""
        return [
            "--study", "synthetic",
            "--speed", *map(str, self.speed),
            "--quality", *map(str, self.quality),
            "--models", *map(str, self.manifests),
            *(["--corpus", str(self.corpus)] if self.corpus else []),
            "--output", str(output),
        ]  # fmt: skip


def write(
    folder: Path,
    models: int = 1,
    variants: tuple[str, ...] = CPU_VARIANTS,
    faults: dict[tuple[str, str], str] | None = None,
    seed: int = 1,
    replicates: int = 5,
    protocols: tuple[str, ...] = ("standard", "study"),
    environment: dict | None = None,
    loads: tuple = (),
    machine: str = "",
) -> Study:
    """Write a study of the first ``models`` MODELS; ``faults`` maps (model, variant) to a fault.

    Faults: out_of_memory, unsupported, hung, error (the cell failed while measured), quality_error (while evaluated),
    out_of_memory_16 (the cell failed at 16 sequences alone), not_quantized, fell_back, nan (NLL not finite), garbage
    (the text is another model's), other_machine, noisy, disturbed, random (no accuracy: not_applicable). environment:
    fields that differ from
    ENVIRONMENT; with ``"device": "cuda"`` each cell has a profile of its kernels. loads: further ones, (name,
    sequences, prompt tokens, new tokens) each. machine: the kind in whose folders the cells lie.
    """
    folder = Path(folder)
    faults = faults or {}
    where = {**ENVIRONMENT, **(environment or {})}
    study = Study(folder)
    for model in list(MODELS)[:models]:
        manifest = folder / "models" / model / "manifest.json"
        write_json(
            manifest,
            {
                "digest": digest(model),
                "source": {"kind": "local", "path": "models/x"},
                "made_from": None,
                "parameters": int(MODELS[model]),
                "license": "apache-2.0",
                "architecture": "LlamaForCausalLM",
                "random": False,
                "files": {"model.safetensors": {"sha256": "c" * 64, "bytes": int(MODELS[model] * 4)}},
            },
        )
        study.manifests.append(manifest)
        for variant in variants:
            fault = faults.get((model, variant))
            rng = np.random.default_rng([seed, list(MODELS).index(model), sum(map(ord, variant))])
            path = folder / "speed" / machine / model / f"{variant}.json"
            found = speed(model, variant, variants[0], fault, rng, replicates, protocols, where)
            if loads and "protocols" in found:
                found["loads"] = [under_load(found, load, fault, rng) for load in loads]
            write_json(path, found)
            study.speed.append(path)
            path = folder / "quality" / machine / model / f"{variant}.json"
            data, arrays = quality(model, variant, variants[0], fault, seed, where)
            if arrays:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path.with_suffix(".npz"), **arrays)
                data["digests"]["scores"] = sha256(path.with_suffix(".npz"))
            if variant == variants[0]:
                base = data["digests"].get("scores")
            elif arrays and base:
                data["digests"]["baseline_scores"] = base
            write_json(path, data)
            study.quality.append(path)
    study.corpus = folder / "corpus" / "synthetic-wiki.json"
    write_json(study.corpus, CORPUS | {"digest": corpus_digest(CORPUS)})
    study.environment = folder / "environment.json"
    write_json(study.environment, where)
    return study


# of a study of two kinds of machine: what the config says of each, and what its environments say
KINDS = {
    "cpu-amx": {"device": "cpu", "threads": 1, "price_per_hour": 0.4, "scored_by": "cpu-amx"},
    "arm": {"device": "cpu", "threads": 1, "price_per_hour": 0.1, "hardware": "edge", "scored_by": "cpu-amx"},
}
PLACES = {
    "cpu-amx": {},
    "arm": {"machine": {**ENVIRONMENT["machine"], "cpu": "Small CPU"}, "digest": "b" * 64},
}


def write_machines(folder: Path, kinds: dict = KINDS, places: dict = PLACES, **how) -> Study:
    """A study of several kinds of machine, the second scored on the first as ``scored_by`` says; how: of ``write``."""
    study = Study(folder)
    for seed, (kind, entry) in enumerate(kinds.items(), 1):
        own = write(folder, machine=kind, environment=places[kind], seed=seed, **how)
        study.speed += own.speed
        if entry["scored_by"] == kind:
            study.quality += own.quality
        else:
            shutil.rmtree(folder / "quality" / kind)
        study.manifests, study.corpus, study.environment = own.manifests, own.corpus, own.environment
    return study
