"""Why is a cell's loss as high as a guess? Tests each known fault on a small sample and names the one that fits.

    python -m workflow.tradeoff.evaluate.diagnose --quality results/demo/quality/gpt2/torch-fp32.json \\
        --model-folder results/demo/models/gpt2 --artifact results/demo/models/gpt2 \\
        --corpus results/demo/corpus/wikitext.json --variant torch-fp32 --share 0.85 --device cpu --threads 2 \\
        --output results/demo/quality/gpt2/torch-fp32.diagnosis.json

Runs when a convention's loss is above ``share`` of ln(vocabulary), or the cell diverged; else it says not_needed.

The recorded loss is compared with the same tokens scored again. If they differ, the fault lay in the scoring, and the
fault that gives the recorded loss when committed on purpose is named. If they agree, it lies in the model, and the one
that brings the loss down when undone is named, or the one that shows in the weights or the output.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from workflow.tradeoff import corpus as corpus_file
from workflow.tradeoff import errors, files, loaded, variants
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.variants import VARIANTS

SCHEMA = 1
# a repeated score differs in rounding; a sample's mean differs from the corpus' by more
TOLERANCE_NATS = 0.05
TOLERANCE_SHARE = 0.02
# undoing a fault must lower the loss by this share of ln V
RELIEF = 0.1


def suspect(quality: dict, uniform: float, share: float) -> tuple[str, float] | None:
    """(convention, loss) of the highest loss above ``share`` of ``uniform``; None when there is none."""
    high = [
        (name, found["mean_nll"])
        for name, found in (quality.get("conventions") or {}).items()
        if found.get("mean_nll") is not None and found["mean_nll"] > share * uniform
    ]
    return max(high, key=lambda item: item[1]) if high else None


def from_numbers(nll: float, vocabulary: int) -> dict:
    """What a loss alone can say, when neither model nor text is at hand.

    Guessing uniformly costs ln V on any text, and weights that were never trained cost no less on average: their logits
    are noise, which only adds. A loss clearly below ln V rules both out, so something was learned or leaked through.
    Returns share (of ln V), uniform, ruled_out {hypothesis: reason} and left [hypothesis].
    """
    uniform = math.log(vocabulary)
    ruled_out = {}
    if abs(nll - uniform) > TOLERANCE_NATS:
        ruled_out["uniform_output"] = f"a uniform output costs ln {vocabulary:,} = {uniform:.3f}, not {nll:.3f}"
    if nll < uniform - TOLERANCE_NATS:
        ruled_out["random_weights"] = (
            f"untrained weights cost at least ln {vocabulary:,} = {uniform:.3f}, not {nll:.3f}"
        )
    return {
        "share": nll / uniform,
        "uniform": uniform,
        "ruled_out": ruled_out,
        "left": [name for name in NAMES if name not in ruled_out],
    }


NAMES = (
    "unshifted_labels",
    "doubly_shifted_labels",
    "padding_scored",
    "missing_bos",
    "random_weights",
    "uniform_output",
    "untied_head",
    "fp16_overflow",
    "artifact",
)


def name_fault(
    recorded: float | None, rescored: float | None, uniform: float, share: float, tested: Sequence
) -> str | None:
    """The hypothesis that fits best, or None.

    recorded: None when the cell diverged. rescored: None when it is not finite. tested: ``hypotheses.Hypothesis``.
    """
    certain = [item for item in tested if item.kind == "model" and item.shows]
    if certain:
        return certain[0].name
    if recorded is not None and (rescored is None or not _near(recorded, rescored)):
        fits = [
            item for item in tested if item.kind == "scoring" and item.nll is not None and _near(recorded, item.nll)
        ]
        return min(fits, key=lambda item: abs(item.nll - recorded)).name if fits else None
    before = math.inf if rescored is None else rescored
    relief = [
        item
        for item in tested
        if item.kind == "model" and item.nll is not None and item.nll <= min(share * uniform, before - RELIEF * uniform)
    ]
    if relief:
        # a fault that has a name of its own says more than "the artifact is to blame"
        return min(relief, key=lambda item: (item.name == "artifact", item.nll)).name
    shown = [item.name for item in tested if item.kind == "evidence" and item.shows]
    return shown[0] if shown else None


def _near(recorded: float, nll: float) -> bool:
    return abs(nll - recorded) <= max(TOLERANCE_NATS, TOLERANCE_SHARE * recorded)


def recorded_on(sample_tokens: np.ndarray, archive: Path, convention: str, mean: float) -> float:
    """The recorded loss of exactly the sample's tokens; the whole corpus' ``mean`` when the archive has others."""
    if archive.exists():
        with np.load(archive) as stored:
            if f"{convention}/token" in stored:
                token, nll = stored[f"{convention}/token"], stored[f"{convention}/nll"]
                count = len(sample_tokens)
                if len(token) >= count and np.array_equal(token[:count], sample_tokens):
                    return float(np.mean(nll[:count], dtype=np.float64))
    return mean


def examine(quality: dict, archive: Path, args, convention: str, mean: float | None, uniform: float) -> dict:
    """Load the cell, test every hypothesis on a sample of ``convention``, and say which fits."""
    from transformers import AutoTokenizer

    from workflow.tradeoff import engines
    from workflow.tradeoff.evaluate import conventions, hypotheses

    tokenizer = AutoTokenizer.from_pretrained(args.model_folder, local_files_only=True)
    engine = engines.load(VARIANTS[args.variant], args.artifact, args.model_folder, args.device, args.threads)
    corpus = corpus_file.read(args.corpus)
    bos = (quality.get("conventions") or {}).get(convention, {}).get("bos", "auto")
    vocabulary = conventions.vocabulary(tokenizer, bos)
    plan = conventions.plan(
        convention, corpus["rows"], corpus["documents"], vocabulary, engine.context, args.sample_tokens
    )
    windows = _sample(plan.windows, args.sample_tokens)
    recorded = None
    if mean is not None:
        recorded = recorded_on(np.concatenate([window.targets for window in windows]), archive, convention, mean)

    score = hypotheses.scorer(engine)
    rescored = hypotheses.mean(hypotheses.right(score, windows))
    aim = math.inf if recorded is None else recorded
    longest = max(len(window.tokens) for window in windows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tested = [
        hypotheses.unshifted_labels(score, windows),
        hypotheses.doubly_shifted_labels(score, windows),
        hypotheses.padding_scored(score, windows, pad, (longest, min(plan.length, engine.context)), aim),
        hypotheses.missing_bos(score, windows, tokenizer.bos_token_id),
        hypotheses.uniform_output(score, windows, rescored, uniform),
    ]
    half = _half(engine)
    del engine, score
    tested += _against_float32(args, windows, aim, rescored, half)
    fault = name_fault(recorded, rescored, uniform, args.share, tested)
    return {
        "recorded_nll": recorded,
        "rescored_nll": rescored,
        "sample_tokens": sum(window.scored for window in windows),
        "fault": fault,
        "hypotheses": [
            {"name": item.name, "kind": item.kind, "nll": item.nll, "shows": item.shows, "detail": item.detail}
            for item in sorted(tested, key=lambda item: NAMES.index(item.name))
        ],
    }


def _sample(windows: Sequence, tokens: int) -> list:
    """Whole windows from the start until ``tokens`` are scored."""
    taken, scored = [], 0
    for window in windows:
        taken.append(window)
        scored += window.scored
        if scored >= tokens:
            break
    return taken


def _half(engine) -> bool:
    """Whether the engine computes in float16."""
    return any(name.startswith(("float16", "torch.float16")) for name in engine.proof()["weight_bytes"])


def _against_float32(args, windows: Sequence, aim: float, rescored: float | None, half: bool) -> list:
    """The hypotheses that look into the model itself: its float32 weights, on the CPU, by transformers."""
    from workflow.tradeoff import engines
    from workflow.tradeoff.evaluate import hypotheses

    reference = engines.load(VARIANTS["torch-fp32"], args.model_folder, args.model_folder, "cpu", args.threads)
    nll = hypotheses.mean(hypotheses.right(hypotheses.scorer(reference), windows))
    network = reference.network
    return [
        hypotheses.random_weights(network),
        hypotheses.untied_head(network, args.model_folder, windows, aim, rescored),
        hypotheses.fp16_overflow(network, nll, windows, half),
        hypotheses.Hypothesis("artifact", hypotheses.MODEL, nll, "the loss of the model's own weights in float32"),
    ]


def diagnose(args) -> dict:
    """The diagnosis of a cell: status ``not_needed``, ``found``, ``not_found``, or the failure that stopped it."""
    quality = files.read_json(args.quality)
    config = files.read_json(args.model_folder / "config.json")
    if "vocab_size" not in config:
        raise UserError(f"{args.model_folder}/config.json has no vocab_size: give the folder that fetch made")
    uniform = math.log(config["vocab_size"])
    about = {
        "schema": SCHEMA,
        "model": quality.get("model"),
        "variant": args.variant,
        "share": args.share,
        "uniform_nll": uniform,
    }
    found = suspect(quality, uniform, args.share)
    if found is None and quality.get("status") != "diverged":
        return {**about, "status": "not_needed"}
    convention, mean = found or (args.convention, None)
    about["convention"] = convention
    if mean is not None:
        about["numbers"] = from_numbers(mean, config["vocab_size"])
    with loaded.digests(artifact=args.artifact, model=args.model_folder) as digests:
        check_same(digests, quality.get("digests", {}), args)
        try:
            result = examine(quality, args.quality.with_suffix(".npz"), args, convention, mean, uniform)
        except UserError:
            raise
        except CellFailure as failure:
            return {**about, "status": failure.status, "reason": failure.reason}
        except Exception as error:
            if errors.full_disk(error):
                raise
            # whatever a library raises is this diagnosis' status, and ends no study
            return {**about, "status": "error", "reason": errors.described(error)}
    return {**about, "status": "found" if result["fault"] else "not_found", **result}


def check_same(digests: Mapping[str, str], evaluated: Mapping[str, str], args) -> None:
    """UserError unless what is to be examined is what was evaluated."""
    here = {**digests, "corpus": loaded.check_corpus(args.corpus, corpus_file.read(args.corpus))}
    for role, path in (("artifact", args.artifact), ("model", args.model_folder), ("corpus", args.corpus)):
        if here[role] != evaluated.get(role):
            raise UserError(
                f"{args.quality} is of the {role} {loaded.short(evaluated.get(role, 'unknown'))}, and {path} is "
                f"{loaded.short(here[role])}: evaluate the cell again"
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--quality", type=Path, required=True, help="quality/MODEL/VARIANT.json; its .npz is read too")
    parser.add_argument("--model-folder", type=Path, required=True, help="safetensors, config and tokenizer")
    parser.add_argument("--artifact", type=Path, required=True, help="the folder that the variant runs")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--variant", required=True, choices=VARIANTS)
    parser.add_argument("--share", type=float, default=0.85, help="of ln(vocabulary), above which a loss is examined")
    parser.add_argument("--convention", default="windows-512", help="examined where a diverged cell has none")
    parser.add_argument("--sample-tokens", type=int, default=1024, help="scored tokens of the sample")
    parser.add_argument("--device", required=True, choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    if not 0 < args.share < 1:
        raise UserError(f"--share {args.share} is not between 0 and 1: it is a share of ln(vocabulary)")
    result = diagnose(args)
    files.write_json(args.output, result)
    print(f"{args.quality}: {result['status']}{': ' + result['fault'] if result.get('fault') else ''}")


if __name__ == "__main__":
    errors.run(main)
