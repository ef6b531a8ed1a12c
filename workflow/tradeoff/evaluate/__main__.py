"""Evaluate one cell: per-token log-probabilities by convention, divergence from the baseline, generated text.

    python -m workflow.tradeoff.evaluate --study demo --model smollm2 --variant onnx-int8 --baseline torch-fp32 \\
        --artifact results/demo/artifacts/smollm2/onnx-dynamic --model-folder results/demo/models/smollm2 \\
        --corpus results/demo/corpus/wiki.json --baseline-quality results/demo/quality/smollm2/torch-fp32.json \\
        --conventions windows-512 study --max-tokens 4096 --batch-tokens 2048 --divergence-tokens 512 \\
        --generate-tokens 48 --bos auto --device cpu --threads 2 --output results/demo/quality/smollm2/onnx-int8.json

Beside the JSON it writes ``{variant}.npz`` ({convention}/nll, /block, /token; of the first convention also
/kl, /dp, /same_top) and, for the baseline, ``{variant}.logprobs.npz`` and ``{variant}.plans.npz``, what was scored.
A cell that fails writes the same files, empty, with its status and reason, and the stage still succeeds: its failure is
data. The JSON carries the digests of what was loaded (``loaded``), of its arrays, and of what it was compared with.
"""

import sys
from pathlib import Path

from workflow.tradeoff import corpus, errors, files, loaded, variants, words
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate.cell import evaluate, failed, opened, write
from workflow.tradeoff.run import environment, fork, hang, interpreter, machines, shortage
from workflow.tradeoff.variants import VARIANTS


def arguments(argv: list[str]):
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--study", required=True)
    parser.add_argument("--model", required=True, help="its name in the config")
    parser.add_argument("--variant", required=True, choices=VARIANTS)
    parser.add_argument("--baseline", required=True, help="the variant that this one is compared with, maybe itself")
    parser.add_argument("--artifact", required=True, type=Path, help="the folder that the variant runs")
    parser.add_argument("--model-folder", required=True, type=Path, help="safetensors, config and tokenizer")
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--baseline-quality", default="", help="the baseline's JSON; empty for the baseline itself")
    parser.add_argument("--conventions", required=True, nargs="+", help=words.CONVENTIONS)
    parser.add_argument("--max-tokens", type=int, default=0, help="scored tokens a convention; 0: the whole corpus")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="input tokens of one forward pass")
    parser.add_argument("--divergence-tokens", type=int, default=512, help="scored tokens of the first convention")
    parser.add_argument("--generate-tokens", type=int, default=48, help="new tokens a prompt; 0: no text")
    parser.add_argument("--chat", default="auto", choices=["auto", "never"], help="the tokenizer's chat template")
    parser.add_argument("--bos", default="auto", choices=["auto", "always", "never"])
    parser.add_argument("--device", required=True, choices=["cpu", "cuda"])
    parser.add_argument("--threads", required=True, type=int)
    hang.add_flag(parser)
    machines.add_flag(parser)
    parser.add_argument("--output", required=True, type=Path)
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = arguments(argv)
    with loaded.digests(artifact=args.artifact, model=args.model_folder) as digests:
        made = evaluate(args, digests)
    write(args, *made)


def apart(argv: list[str]) -> None:
    """``main`` in a process of its own: when that dies or hangs, the cell has a status and the study goes on."""
    args = arguments(argv)
    variant, fresh, python = VARIANTS[args.variant], args.device == "cuda", ""
    try:
        machines.check(args.machine, args.output)
        python = interpreter.of(variant) if fresh else ""
    except CellFailure as failure:
        args.device = machines.device_here(args.device)
        write(args, _failed(args, failure), {}, {})
        return
    before = shortage.on_host()
    limit = hang.Limit("evaluate", args.hung_after_s, args.output)
    try:
        code, text = fork.run("workflow.tradeoff.evaluate.__main__:main", argv, fresh=fresh, python=python, limit=limit)
    except CellFailure as failure:
        write(args, _failed(args, failure), {}, {})
        return
    if not code:
        if fresh and variant.environment:
            _settle(args)
        return
    failure = fork.failure(code, text, variant, args.artifact, before)
    if isinstance(failure, UserError):  # it has said why
        sys.exit(code)
    write(args, _failed(args, failure), {}, {})


def _settle(args) -> None:
    """Give a cell of an engine with its own packages the environment of the study, and its own beside it.

    What it is compared with ran here; its engine's packages are its own, as its variant says.
    """
    result = files.read_json(args.output)
    own = result["environment"]["libraries"]
    result["environment"] = environment.collect(args.device, args.threads)
    files.write_json(args.output, result | {"engine_libraries": own})


def _failed(args, failure: CellFailure) -> dict:
    """What is written of a cell that gave no figure."""
    with loaded.digests(artifact=args.artifact, model=args.model_folder) as digests:
        return opened(args, corpus.read(args.corpus), digests) | failed(failure)


if __name__ == "__main__":
    errors.run(apart)
