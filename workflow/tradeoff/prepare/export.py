"""Export a model to ONNX in float32, with or without past key values, and compare its logits with torch's.

    python -m workflow.tradeoff.prepare.export --model-folder results/demo/models/M --cache --threads 2 \\
        --output results/demo/artifacts/M/onnx-fp32-kv
"""

import gc
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import torch
from transformers import DynamicCache

from workflow.tradeoff import architecture, errors, files
from workflow.tradeoff.engines import hf, onnx
from workflow.tradeoff.engines.weights import not_numbers
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.prepare import external, operators, parity
from workflow.tradeoff.variants import VARIANTS

OPSET = 18  # what torch 2.13 exports by itself; pinned so that another torch gives the same operators


def trace(network, output: Path, cache: bool) -> None:
    """Write ``output/model.onnx`` by torch's tracing exporter: batch, sequence and past dynamic, weights as inputs.

    Inputs: input_ids and position_ids (B, T), attention_mask (B, P + T), all int64; with ``cache`` also
    past_key_values.{i}.key and .value (B, KV heads, P, width). Outputs: logits (B, T, V), and with ``cache``
    present.{i}.key and .value of length P + T. Every layer's cache is whole: a sliding window is in the mask alone.
    A file with weights would cost torch's exporter four copies of them. Its constant folding is off, which would put
    turned copies in place of the weights.
    """
    inputs, past = examples(network, cache)
    names = [f"past_key_values.{index}.{part}" for index in range(len(past) // 2) for part in ("key", "value")]
    whole = network.forward

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(inputs, tensors, strict=False))
        kept = filled(tensors[len(inputs) :]) if cache else None
        logits = whole(**given, cache=kept, use_cache=cache).logits
        return logits, *(kept_tensors(kept) if cache else ())

    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in (*inputs, "logits")}
    if cache:
        axes["attention_mask"] = {0: "batch_size", 1: "past_sequence_length + sequence_length"}
    for name in names:
        axes[name] = {0: "batch_size", 2: "past_sequence_length"}
        axes[present(name)] = {0: "batch_size", 2: "past_sequence_length + sequence_length"}
    operators.register(OPSET)
    silent = mock.patch.object(torch._C, "_jit_onnx_log")  # a failure would print the whole graph
    with mock.patch.object(network, "forward", flat), silent, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a trace fixes, and that torch has another exporter
        torch.onnx.export(
            network,
            (*inputs.values(), *past),
            output / "model.onnx",
            input_names=[*inputs, *names],
            output_names=["logits", *map(present, names)],
            dynamic_axes=axes,
            opset_version=OPSET,
            export_params=False,
            do_constant_folding=False,
            dynamo=False,
        )


def present(name: str) -> str:
    """The output that an input of the cache becomes."""
    return name.replace("past_key_values", "present")


@torch.no_grad()  # no inference mode: its tensors cannot be traced
def examples(network, cache: bool) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Inputs to trace with, 2 sequences of 5 tokens, by name; with ``cache`` 3 tokens before them, keys and values."""
    batch, width, before = 2, 5, 3 if cache else 0
    ids = torch.arange(batch * (before + width)).reshape(batch, -1) % network.config.get_text_config().vocab_size
    inputs = {"input_ids": ids[:, before:], "attention_mask": torch.ones_like(ids)}
    if "position_ids" in inspect.signature(network.forward).parameters:
        inputs["position_ids"] = torch.arange(before, before + width).expand(batch, width)
    past = DynamicCache()
    if cache:
        network(input_ids=ids[:, :before], cache=past, use_cache=True)
    return inputs, list(kept_tensors(past))


def kept_tensors(cache: DynamicCache) -> Iterator[torch.Tensor]:
    """Keys and values of each layer in turn."""
    for layer in cache.layers:
        yield from (layer.keys, layer.values)


def filled(tensors: Sequence[torch.Tensor]) -> DynamicCache:
    """A cache with the keys and values ``tensors``, the inverse of ``kept_tensors``."""
    cache = DynamicCache()
    for index, pair in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(*pair, index)
    return cache


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
    try:
        trace(reference.network, output, cache)
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise operators.lacking(error) from error
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
            source={"exporter": "torch", "opset": OPSET, "task": "with past" if args.cache else "without past"},
            made_from=manifest["digest"],
            parity=found,
        )


if __name__ == "__main__":
    errors.run(main)
