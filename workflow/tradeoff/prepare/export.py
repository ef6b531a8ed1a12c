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
from workflow.tradeoff.engines.weights import not_numbers
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import external, parity
from workflow.tradeoff.variants import VARIANTS

KEPT = ("model.onnx", "model.onnx.data")
OPSET = 18  # what torch 2.13 exports by itself; pinned so that another torch gives the same operators


def trace(network, output: Path, cache: bool) -> None:
    """Write ``output/model.onnx`` by optimum's exporter: batch, sequence and past dynamic, weights as inputs.

    A file with weights would cost torch's exporter four copies of them. Its constant folding is off, which would put
    turned copies in place of the weights. optimum's post-processing (which ties the head to the embedding again) is
    off: the quantizers only see a head that has a matrix of its own, and on larger models the tying fails.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.exporters.tasks import TasksManager

    kind = network.config.model_type
    if kind not in TasksManager.get_supported_model_type_for_task("text-generation", exporter="onnx"):
        raise CellFailure("unsupported", f"optimum's ONNX exporter does not know the architecture {kind}")
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


def export(model: Path, output: Path, cache: bool, threads: int, longest: int) -> dict:
    """Write ``output/model.onnx`` and its data in float32, and compare logits at lengths up to ``longest``.

    Returns ``lengths`` (see ``parity.compare``), of all together ``max_abs_difference`` and ``same_top``, and
    ``greedy_agrees`` (the same greedy tokens of the shortest, which with a cache pass through it).
    Raises CellFailure when the checkpoint's weights are no numbers.
    """
    if wrong := not_numbers(model):
        raise CellFailure("diverged", wrong)
    reference = hf.load(VARIANTS["torch-fp32"], model, model, "cpu", threads)
    expected = parity.expect(reference, architecture.vocabulary(reference.network.config), longest)
    short = expected[0].ids[:, : max(1, reference.context - parity.STEPS)]
    new = min(parity.STEPS, reference.context - short.shape[1])
    expected_tokens = reference.generate(short, new)
    weights = reference.network.state_dict()  # a tied head has both its names here, and a matrix of its own there
    files.check_disk(output, sum(tensor.nbytes for tensor in weights.values()), f"exporting {model.name}")
    trace(reference.network, output, cache)
    external.attach(output / "model.onnx", weights)
    del reference, weights
    gc.collect()  # a network is full of cycles, and ONNX Runtime holds the weights again
    engine = onnx.load(VARIANTS["onnx-fp32-kv" if cache else "onnx-fp32"], output, model, "cpu", threads)
    compared = parity.compare(engine, expected)
    return {
        "lengths": compared,
        "max_abs_difference": max(found["max_abs_difference"] for found in compared),
        "same_top": min(found["same_top"] for found in compared),
        "greedy_agrees": bool((engine.generate(short, new) == expected_tokens).all()),
    }


def check(found: dict) -> None:
    """Raise CellFailure unless the file computes what the model does at every length, whole and through the cache."""
    # a difference that is no number is no rounding either
    wrong = [entry for entry in found["lengths"] if not entry["max_abs_difference"] <= parity.TOLERANCE]
    if wrong:
        places = ", ".join(
            f"{entry['max_abs_difference']:.3g} at {entry['tokens']} ({entry['way']})" for entry in wrong
        )
        raise CellFailure(
            "diverged",
            f"the float32 ONNX file does not compute what the model does: a logit differs by {places} tokens, and "
            f"rounding explains {parity.TOLERANCE}",
        )


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--cache", action="store_true", help="with past key values")
    parser.add_argument("--longest", type=int, default=512, help="tokens up to which logits are compared")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    manifest = files.made(args.model_folder)
    with files.atomic_folder(args.output) as folder:
        found = export(args.model_folder, folder, args.cache, args.threads, args.longest)
        print(f"parity with torch: {found}")
        check(found)
        files.write_manifest(
            folder,
            source={"exporter": "optimum", "opset": OPSET, "task": "with past" if args.cache else "without past"},
            made_from=manifest["digest"],
            parity=found,
        )


if __name__ == "__main__":
    errors.run(main)
