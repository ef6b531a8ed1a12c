"""Quantize a model's matrices by AutoRound into one folder that transformers and vLLM load.

    python -m workflow.tradeoff.prepare auto_round --model-folder results/demo/models/M --device cpu --threads 2 \\
        --recipe '{"quantizer": "auto-round", "bits": 4, "group": 64, "iterations": 0, …}' \\
        --output results/demo/artifacts/M/packed-auto-round-bits.4-group.64-iterations.0

iterations: 0 rounds to nearest and reads no text; else each block of the model learns which way to round, and how far
its groups reach, so that its outputs on the calibration text stay (SignRound, Cheng et al. 2023, arXiv 2309.05516).
average_bits: AutoRound's scheme gives each matrix its bits, by how much the loss on that text moves with each choice.
What vLLM fuses, queries with keys and values, gates with ups, gets the same. Matrices are packed as GPTQ's are; what
stays in floats is written in float16, as the scales are.
"""

import importlib
import json
import os
import shutil
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from workflow.tradeoff import errors, files, variants
from workflow.tradeoff.engines import packed
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import calibration
from workflow.tradeoff.run.needs import LEARNED_BATCH

PACKAGE = "auto-round"
SCORED = 16  # pieces, at most, that tell how much each matrix matters
TOGETHER = [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]]
PACKED = 32  # outputs that fill whole numbers of 32 bits, whatever their bits
SLACK = 0.005  # bits by which an average may miss what was asked for


def make(model: Path, folder: Path, recipe: dict, text: dict | None, device: str) -> dict:
    """Write the quantized model into ``folder``; what its manifest says.

    text: the calibration corpus, where the recipe needs one. Raises CellFailure where the model's matrices do not fit
    the recipe, or the file that came out is not what was asked for.
    """
    os.environ["AR_DISABLE_DATASET_SUBPROCESS"] = "1"
    library = packed.imported("auto_round")
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    network = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=torch.float32 if device == "cpu" else torch.float16,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    fits(network, recipe["group"])
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # what it would keep in the user's folders, to find again: scores of a scheme, parts of a model
        os.environ.update(AR_AUTO_SCHEME_CACHE=f"{scratch}/scores", AR_WORK_SPACE=f"{scratch}/work")
        pieces = Path(scratch) / "text.json"
        rows = calibration.pieces(text["rows"], tokenizer, recipe["length"], recipe["samples"]) if text else []
        pieces.write_text(json.dumps(rows))
        rounding = library.AutoRound(
            network,
            tokenizer=tokenizer,
            scheme=scheme(library, recipe),
            dataset=str(pieces),
            device_map=device,
            **settings(recipe, device),
        )
        rounding.quantize_and_save(f"{scratch}/out", format="auto_round")
        written = next(Path(scratch, "out").rglob("config.json")).parent
        for path in sorted(written.iterdir()):
            keep(path, folder / path.name)
    for pattern in ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "chat_template*"):
        for path in model.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    said = counted(folder)
    refuse_others(said, recipe)
    learned = text and {"corpus": text["name"], "sha256": text["sha256"], "pieces": len(rows)}
    return {"auto_round": metadata.version(PACKAGE), "device": device, "calibration": learned, **said}


def settings(recipe: dict, device: str) -> dict:
    """What AutoRound is told beside the scheme."""
    known = {
        "iters": recipe["iterations"],
        "nsamples": recipe["samples"],
        "seqlen": recipe["length"],
        "batch_size": min(LEARNED_BATCH, recipe["samples"]),
        "seed": recipe["seed"],
        "enable_torch_compile": False,
        "amp": device != "cpu",
        "low_cpu_mem_usage": False,
    }
    # without steps AutoRound would search the scales by an importance matrix: to nearest means to nearest
    return known | ({} if recipe["iterations"] else {"disable_opt_rtn": True})


def scheme(library, recipe: dict):
    """AutoRound's own words for the recipe's bits and groups: of all matrices, or of each."""
    kind = importlib.import_module("auto_round.schemes").QuantizationScheme
    options = [
        kind(bits=bits, group_size=recipe["group"], sym=True, data_type="int", act_bits=16)
        for bits in variants.widths(recipe)
    ]
    if not recipe["average_bits"]:
        return options[0]
    return library.AutoScheme(
        avg_bits=recipe["average_bits"],
        options=options,
        shared_layers=TOGETHER,
        nsamples=min(SCORED, recipe["samples"]),
        seqlen=recipe["length"],
        batch_size=min(LEARNED_BATCH, recipe["samples"]),
    )


def fits(network, group: int) -> None:
    """CellFailure where groups of ``group`` do not divide the inputs of a matrix, or its outputs cannot be packed."""
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if module is head or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        outputs, inputs = module.weight.shape if isinstance(module, torch.nn.Linear) else module.weight.T.shape
        if inputs % group:
            able = [size for size in (128, 64, 32) if inputs % size == 0]
            advice = f"a variant with group: {able[0]} fits it" if able else "no group of 32 or more does"
            raise CellFailure(
                "not_applicable", f"groups of {group} do not divide the {inputs} inputs of {name}: {advice}"
            )
        if outputs % PACKED:
            raise CellFailure("not_applicable", f"{name} has {outputs} outputs, which do not pack in {PACKED}s")


def keep(path: Path, target: Path) -> None:
    """Move a file of AutoRound's output, floats of its weights in float16."""
    if path.suffix != ".safetensors":
        described = json.loads(path.read_text()) if path.name == "config.json" else None
        if described is None:
            path.rename(target)
        else:
            target.write_text(json.dumps(described | {"dtype": "float16"}, indent=2))
        return
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    floats = {name: part.half() for name, part in tensors.items() if part.is_floating_point()}
    save_file(tensors | floats, target, metadata={"format": "pt"})


def counted(folder: Path) -> dict:
    """What the written file holds: weights by the bits that they are packed in, and bits of one with scales in."""
    weights: Counter = Counter()
    stored = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        for name in (name.removesuffix(".qweight") for name in shapes if name.endswith(".qweight")):
            (words, outputs), (groups, _) = shapes[f"{name}.qweight"], shapes[f"{name}.scales"]
            zeros = shapes[f"{name}.qzeros"]
            bits = round(32 * zeros[1] / outputs)
            weights[str(bits)] += 32 * words * outputs // bits
            stored += 32 * (words * outputs + zeros[0] * zeros[1]) + 16 * groups * outputs
    total = sum(weights.values())
    return {"weights_by_bits": dict(weights), "bits_per_weight": stored / total if total else 0.0}


def refuse_others(said: dict, recipe: dict) -> None:
    """CellFailure for a file whose matrices have other bits than the recipe's, or more of them than it asked for."""
    strange = set(map(int, said["weights_by_bits"])) - set(variants.widths(recipe))
    if strange or not said["weights_by_bits"]:
        raise CellFailure(
            "error", f"AutoRound packed matrices in {said['weights_by_bits']} bits: not what was asked for"
        )
    if recipe["average_bits"] and said["bits_per_weight"] > recipe["average_bits"] + SLACK:
        raise CellFailure(
            "error",
            f"AutoRound's matrices take {said['bits_per_weight']:.3f} bits a weight, and {recipe['average_bits']:g} "
            "were asked for",
        )


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--recipe", type=json.loads, required=True, help="quantizer and every setting of it, as JSON")
    parser.add_argument("--calibration", type=Path, help="a corpus, as fetched, to learn the rounding on")
    parser.add_argument("--scored", type=Path, help="the study's corpus, which must share no line with it")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    manifest = files.made(args.model_folder)
    text = None
    if variants.calibrated(args.recipe):
        text = calibration.read(args.calibration, args.scored, "a recipe with iterations or average_bits")
    with files.atomic_folder(args.output) as folder:
        # the floats that stay, and 4 bits of the rest; for a moment AutoRound's own copy
        stored = sum(path.stat().st_size for path in args.model_folder.glob("*.safetensors"))
        files.check_disk(folder, 2 * stored, f"the packed weights of {args.model_folder.name}")
        said = make(args.model_folder, folder, args.recipe, text, args.device)
        print(said)
        files.write_manifest(folder, source=args.recipe, made_from=manifest["digest"], **said)


if __name__ == "__main__":
    errors.run(main)
