"""Make a GGUF file of a model: converted from its safetensors, quantized by ggml, checked against torch; or as it came.

    python -m workflow.tradeoff.prepare gguf --model-folder results/demo/models/M --threads 2 \\
        --recipe '{"quantizer": "gguf", "type": "q4_k_m", "imatrix": false}' \\
        --output results/demo/artifacts/M/gguf-q4_k_m

type: a mix of ``gguf_mix``, or ``source``, the file that the model itself was fetched as.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from workflow.tradeoff import errors, files, gguf_text
from workflow.tradeoff.engines.llamacpp import EXACT, FILE, LlamaEngine
from workflow.tradeoff.engines.llamacpp_proof import file_proof
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import gguf_convert, importance

CHECKED_BLOCKS = 2  # blocks of a model that are held against torch: each kind of tensor is in them
PROBE_TOKENS = 1024  # a rotation that is wrong shows far from the beginning
COMPARED = 24  # the last of them, whose logits are compared
TOLERANCE = 1e-3  # of the logits' own spread: what float32 in another order can explain


def check(model: Path, threads: int, scratch: Path) -> dict:
    """Compare the model's first blocks in float32, torch and llama.cpp; ``relative_difference``, ``same_top``.

    relative_difference: root of the mean squared difference of the logits, over their standard deviation.
    Raises CellFailure when they differ by more than rounding.
    """
    config = gguf_convert.blocks(gguf_convert.read_config(model), CHECKED_BLOCKS)
    file = scratch / "blocks.gguf"
    gguf_convert.write(model, file, "f32", threads=threads, config=config, vocabulary=False)
    network = transformers.AutoModelForCausalLM.from_pretrained(
        model, config=config, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()
    length = min(PROBE_TOKENS, config.max_position_embeddings)
    ids = (torch.arange(length)[None] * 7919 + 1) % config.vocab_size
    with torch.inference_mode():
        expected = network(ids, use_cache=False, logits_to_keep=COMPARED).logits
    got = LlamaEngine(file, 32, "cpu", threads, 0, EXACT).score(ids, first=length - expected.shape[1])
    found = {
        "blocks": config.num_hidden_layers,
        "tokens": length,
        "relative_difference": ((got - expected).square().mean().sqrt() / expected.std()).item(),
        "same_top": (got.argmax(-1) == expected.argmax(-1)).float().mean().item(),
    }
    if not found["relative_difference"] <= TOLERANCE:
        raise CellFailure(
            "diverged",
            f"the float32 GGUF file does not compute what the model does: its logits differ by "
            f"{found['relative_difference']:.2g} of their spread, and rounding explains {TOLERANCE}",
        )
    return found


def make(model: Path, folder: Path, mix: str, threads: int, weighting: importance.Importance | None) -> dict:
    """Write ``folder/model.gguf``; what its manifest says."""
    config = gguf_convert.read_config(model)
    gguf_convert.architecture(config, model.name)
    # the file, and for a moment the first blocks in float32, of which the embedding is most
    stored = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    files.check_disk(folder, 2 * stored, f"the GGUF file of {model.name}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        parity = check(model, threads, Path(scratch))
    matrix = weighting.matrix(model, threads) if weighting else None
    said = gguf_convert.write(model, folder / FILE, mix, threads=threads, importance=matrix)
    return {"parity": parity, "importance": weighting.said() if weighting else None, **said}


def keep(model: Path, folder: Path) -> dict:
    """The model's own GGUF file, by a hard link where the file system has them."""
    source = model / gguf_text.KEPT
    if not source.is_file():
        raise CellFailure("not_applicable", f"{model.name} was not fetched as a GGUF file in one part: none is kept")
    try:
        os.link(source, folder / FILE)
    except OSError:
        files.check_disk(folder, source.stat().st_size, f"a copy of {source}")
        shutil.copyfile(source, folder / FILE)
    return {"vocabulary": "its own"}


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--recipe", type=json.loads, required=True, help="quantizer and every setting of it, as JSON")
    parser.add_argument("--calibration", type=Path, help="a corpus, as fetched, to weight the quantization's errors by")
    parser.add_argument("--scored", type=Path, help="the study's corpus, which must share no line with it")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()  # the check leaves most of a model's blocks out on purpose
    manifest = files.made(args.model_folder)
    mix = args.recipe["type"]
    weighting = importance.read(args.calibration, args.scored) if args.recipe["imatrix"] else None
    with files.atomic_folder(args.output) as folder:
        if mix == "source":
            said = keep(args.model_folder, folder)
        else:
            said = make(args.model_folder, folder, mix, args.threads, weighting)
        proof = file_proof(folder / FILE, None)
        held = {key: proof[key] for key in ("weights_by_type", "bits_per_weight")}
        print({"type": mix, **held, **said})
        files.write_manifest(
            folder,
            source=args.recipe,
            made_from=manifest["digest"],
            **said,
            **held,
        )


if __name__ == "__main__":
    errors.run(main)
