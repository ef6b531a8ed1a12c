"""Make a lower-precision ONNX file of an exported one, by ONNX Runtime's own quantizers: one file a quantizer.

    python -m workflow.tradeoff.prepare quantize --input results/demo/artifacts/M/onnx-fp32-kv \\
        --recipe '{"quantizer": "matmul-nbits", "bits": 4, …}' --output results/demo/artifacts/M/onnx-matmul-nbits-…

The weights lie beside the file (``external``), and the quantizers read one at a time, when its turn comes.
"""

import importlib
import json
import logging
from pathlib import Path

from workflow.tradeoff import errors, files, variants
from workflow.tradeoff.engines.onnx_graph import graph_proof


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of the float32 export")
    parser.add_argument("--recipe", type=json.loads, required=True, help="quantizer and every setting of it, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)
    manifest = files.made(args.input)
    files.check_disk(args.output, manifest_bytes(manifest), f"quantizing {args.input}")
    quantizer = importlib.import_module(f"workflow.tradeoff.prepare.{args.recipe['quantizer'].replace('-', '_')}")
    with files.atomic_folder(args.output) as folder:
        target = folder / "model.onnx"
        quantizer.quantize(args.input / "model.onnx", target, args.recipe)
        proof = graph_proof(target, 0 if variants.mixed(args.recipe) else args.recipe.get("bits", 8))
        print({key: proof[key] for key in ("weight_bytes", "quantized_fraction")})
        files.write_manifest(
            folder,
            source=args.recipe,
            made_from=manifest["digest"],
            model=manifest["made_from"],
            quantized_fraction=proof["quantized_fraction"],
        )


def manifest_bytes(manifest: dict) -> int:
    return sum(entry["bytes"] for entry in manifest["files"].values())


if __name__ == "__main__":
    errors.run(main)
