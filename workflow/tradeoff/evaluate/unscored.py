"""Write the evaluation of cells whose model has random weights: none, and why.

    python -m workflow.tradeoff.evaluate.unscored --study s --baselines torch-fp16 torch-fp16 \\
        --corpus results/s/corpus/c.json \\
        --device cuda --threads 8 --outputs results/s/quality/M/torch-fp16.json results/s/quality/M/int8-graph.json
"""

from pathlib import Path

import numpy as np

from workflow.tradeoff import corpus as corpus_file
from workflow.tradeoff import errors, files
from workflow.tradeoff.run import environment

REASON = "the weights are random: they have speed and memory, but no accuracy"


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--study", required=True)
    parser.add_argument("--baselines", nargs="+", required=True, help="the baseline of each output")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--outputs", nargs="+", type=Path, required=True, help="quality/{model}/{variant}.json")
    args = parser.parse_args(argv)
    corpus = corpus_file.read(args.corpus)
    here = environment.collect(args.device, args.threads)
    for output, baseline in zip(args.outputs, args.baselines, strict=True):
        with files.atomic_file(output.with_suffix(".npz")) as temporary:
            np.savez(temporary)
        files.write_json(
            output,
            {
                "schema": 1,
                "study": args.study,
                "model": output.parent.name,
                "variant": output.stem,
                "baseline": baseline,
                "status": "not_applicable",
                "reason": REASON,
                "corpus": {key: corpus[key] for key in ("name", "sha256", "license")},
                "conventions": {},
                "divergence": None,
                "generated": [],
                "environment": here,
            },
        )


if __name__ == "__main__":
    errors.run(main)
