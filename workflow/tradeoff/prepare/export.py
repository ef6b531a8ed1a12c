"""Export a model to ONNX in float32, with or without past key values, and compare its logits with torch's.

    python -m workflow.tradeoff.prepare.export --model-folder results/demo/models/M --cache --threads 2 \\
        --output results/demo/onnx/M/fp32-kv
"""

import functools
import gc
import logging
import warnings
from pathlib import Path
from unittest import mock

import torch

from workflow.tradeoff import architecture, errors, files
from workflow.tradeoff.engines import hf, onnx
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.prepare import external
from workflow.tradeoff.variants import VARIANTS

KEPT = ("model.onnx", "model.onnx.data")
OPSET = 18  # what torch 2.13 exports by itself; pinned so that another torch gives the same operators
PROBE_TOKENS = 24  # length of the sequence that parity is checked on
TOLERANCE = 1e-2  # largest difference of a logit, in nats, that float32 reordering can explain


def trace(network, output: Path, cache: bool) -> None:
    """Write ``output/model.onnx`` by optimum's exporter: batch, sequence and past dynamic, weights as inputs.

    A file with weights would cost torch's exporter four copies of them. Its constant folding is off, which would put
    turned copies in place of the weights. optimum's post-processing (which ties the head to the embedding again) is
    off: the quantizers only see a head that has a matrix of its own, and on larger models the tying fails.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    logging.getLogger("optimum").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.onnx")
    network.config.use_cache = cache
    # optimum passes on no export_params
    without_weights = functools.partial(torch.onnx.export, export_params=False)
    with mock.patch.object(torch.onnx, "export", without_weights):
        onnx_export_from_model(
            network,
            output,
            task="text-generation-with-past" if cache else "text-generation",
            device="cpu",
            opset=OPSET,
            no_post_process=True,
            do_validation=False,
            do_constant_folding=False,
        )
    for path in output.iterdir():
        if path.name not in KEPT:
            path.unlink()


def probe_ids(vocabulary: int) -> torch.Tensor:
    """A fixed sequence (1, PROBE_TOKENS) of token ids spread over the vocabulary, int64."""
    return (torch.arange(PROBE_TOKENS)[None] * 7919 + 1) % vocabulary


def export(model: Path, output: Path, cache: bool, threads: int) -> dict:
    """Write ``output/model.onnx`` and its data in float32, and compare logits.

    torch's float32 logits are compared with ONNX Runtime's over a whole sequence and, with a cache, step by step.
    Returns ``max_abs_difference`` (logits), ``same_top`` (share of positions with the same most likely token) and
    ``greedy_agrees`` (the same 8 greedy tokens, which with a cache pass through it).
    """
    reference = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", threads)
    ids = probe_ids(architecture.vocabulary(reference.network.config))
    expected, expected_tokens = reference.score(ids), reference.generate(ids, 8)
    weights = reference.network.state_dict()  # a tied head has both its names here, and a matrix of its own there
    files.check_disk(output, sum(tensor.nbytes for tensor in weights.values()), f"exporting {model.name}")
    trace(reference.network, output, cache)
    external.attach(output / "model.onnx", weights)
    del reference, weights
    gc.collect()  # a network is full of cycles, and ONNX Runtime holds the weights again
    engine = onnx.load(VARIANTS["onnx-fp32-kv" if cache else "onnx-fp32"], output, model, "cpu", threads)
    got = engine.score(ids)
    return {
        "max_abs_difference": (got - expected).abs().max().item(),
        "same_top": (got.argmax(-1) == expected.argmax(-1)).float().mean().item(),
        "greedy_agrees": bool((engine.generate(ids, 8) == expected_tokens).all()),
        "tokens": PROBE_TOKENS,
    }


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--cache", action="store_true", help="with past key values")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    manifest = files.read_manifest(args.model_folder)
    with files.atomic_folder(args.output) as folder:
        found = export(args.model_folder, folder, args.cache, args.threads)
        print(f"parity with torch: {found}")
        if not found["max_abs_difference"] <= TOLERANCE:
            raise UserError(
                f"the ONNX export of {args.model_folder.name} differs from torch by {found['max_abs_difference']:.3g} "
                f"in a logit (at most {TOLERANCE} is rounding): leave the onnx variants of this model out"
            )
        files.write_manifest(
            folder,
            source={"exporter": "optimum", "opset": OPSET, "task": "with past" if args.cache else "without past"},
            made_from=manifest["digest"],
            parity=found,
        )


if __name__ == "__main__":
    errors.run(main)
