"""Evaluate one cell: per-token log-probabilities by convention, divergence from the baseline, generated text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from workflow.tradeoff import architecture, engines, errors, files, loaded, words
from workflow.tradeoff import corpus as corpus_file
from workflow.tradeoff.engines import weights
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate import baselines, conventions, divergence, generation, plans, scoring
from workflow.tradeoff.evaluate.baselines import Baseline
from workflow.tradeoff.evaluate.prompts import PROMPTS
from workflow.tradeoff.run import environment, hang, shortage
from workflow.tradeoff.variants import VARIANTS

# a cell that is worse than guessing, and this many nats worse than its baseline, has not merely lost accuracy
BEYOND_REASON = 1.0
# nats a token, mean of absolute differences, between two programs that compute one model in float32: tiny models differ
# by 1e-6, and large ones stay below 1e-4; an export that lost something is a hundred times further off
ROUNDING = 1e-3


def write(args, result: dict, arrays: dict[str, np.ndarray], kept: Mapping[str, dict[str, np.ndarray]]) -> None:
    """Write the arrays, and the JSON that knows them by their digests; kept: by name, what a baseline's cells need."""
    digests = result["digests"]
    digests["scores"] = write_arrays(baselines.beside(args.output, ".npz"), arrays)
    if args.variant == args.baseline:
        for name in baselines.KEPT:
            digests[name] = write_arrays(baselines.beside(args.output, f".{name}.npz"), kept.get(name, {}))
    files.write_json(args.output, result)


def evaluate(args, digests: Mapping[str, str]) -> tuple[dict, dict[str, np.ndarray], dict[str, dict]]:
    """The quality JSON, the per-token arrays, and what a baseline keeps for its model's other cells (else empty).

    digests: of the artifact and the model (``loaded.digests``).
    """
    corpus = corpus_file.read(args.corpus)
    result = opened(args, corpus, digests)
    try:
        if is_random(args.model_folder):
            raise CellFailure("not_applicable", "the weights are random: they have speed and memory, but no accuracy")
        baseline = baselines.read("" if args.variant == args.baseline else args.baseline_quality)
        hang.at("cut the text into tokens")
        prepared = prepare(args, corpus, baseline)
        hang.at("load")
        engine = engines.load(VARIANTS[args.variant], args.artifact, args.model_folder, args.device, args.threads)
        return run(args, engine, prepared, baseline, result)
    except UserError:
        raise
    except CellFailure as failure:
        return result | failed(blamed(failure, args.model_folder)), {}, {}
    except Exception as error:
        if errors.full_disk(error):
            raise
        # whatever a library raises is this cell's status, and no other's
        failure = shortage.of(error, VARIANTS[args.variant], args.artifact, args.device)
        return result | failed(failure or CellFailure("error", errors.described(error))), {}, {}


def opened(args, corpus: dict, digests: Mapping[str, str]) -> dict:
    """The quality JSON of a cell of which nothing is known yet but its bytes and the baseline's."""
    own = {**digests, "corpus": loaded.check_corpus(args.corpus, corpus)}
    path = "" if args.variant == args.baseline else args.baseline_quality
    return {
        "schema": 1,
        "study": args.study,
        "model": args.model,
        "variant": args.variant,
        "baseline": args.baseline,
        "status": "ok",
        "reason": "",
        "digests": own | baselines.compared_with(path, own),
        "corpus": {key: corpus[key] for key in ("name", "sha256", "license")},
        "conventions": {},
        "divergence": None,
        "generated": [],
        "environment": environment.collect(device=args.device, threads=args.threads),
    }


def failed(failure: CellFailure) -> dict:
    """What a failure puts into the JSON: what was scored before it is no figure of a working cell."""
    nothing = {"conventions": {}, "divergence": None, "generated": []}
    return nothing | {"status": failure.status, "reason": failure.reason}


def blamed(failure: CellFailure, model: Path) -> CellFailure:
    """A failure, told to be the checkpoint's own when its weights are no numbers."""
    if failure.status == "diverged" and (wrong := weights.not_numbers(model)):
        return CellFailure("diverged", f"{failure.reason}: {wrong}")
    return failure


def is_random(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    return manifest.is_file() and bool(files.read_json(manifest).get("random"))


def prepare(args, corpus: dict, baseline: Baseline | None):
    """Tokenizer, config, plans, the prompts' ids, what ends a text, what is said of prompting: equal for each variant.

    The plans are the baseline's own, where it kept those that are asked for here.
    """
    if duplicates := {name for name in args.conventions if args.conventions.count(name) > 1}:
        raise UserError(f"evaluate.conventions: {', '.join(sorted(duplicates))} is named twice")
    for name in args.conventions:
        words.convention(name)
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(args.model_folder, **local)
    config = AutoConfig.from_pretrained(args.model_folder, **local)
    vocab = conventions.vocabulary(tokenizer, args.bos)
    context = architecture.longest(config)
    wanted = baseline and plans.stored(baseline.plans, plans.settings(args))
    wanted = wanted or [
        conventions.plan(name, corpus["rows"], corpus["documents"], vocab, context, args.max_tokens or None)
        for name in args.conventions
    ]
    refuse_beyond(wanted, architecture.vocabulary(config))
    stop = generation.stop_tokens(config, tokenizer, args.model_folder)
    prompts, said = [], {}
    try:
        chat = args.chat == "auto" and bool(tokenizer.chat_template)
        said["prompting"] = generation.prompting(tokenizer, vocab.decision, chat, stop)
        prompts = generation.prompts(tokenizer, vocab, args.chat) if args.generate_tokens > 0 else []
    except Exception as error:  # the checkpoint's own template: no perplexity needs it
        reason = f"no text, the chat template fails ({errors.described(error)}): evaluate.chat: never does without"
        said = {"generated_reason": reason}
    prompts = generation.fitting(prompts, args.generate_tokens, context)
    return tokenizer, config, wanted, prompts, stop, said


def refuse_beyond(wanted: Sequence[conventions.Plan], vocabulary: int) -> None:
    """Raise CellFailure when the text has tokens that the model has no row for: a kernel may read any row in place."""
    largest = max(int(window.tokens.max()) for plan in wanted for window in plan.windows)
    if largest >= vocabulary:
        raise CellFailure(
            "error",
            f"the model's tokenizer gives the id {largest} on this text, and the model has {vocabulary} tokens: its "
            "tokenizer is another model's, or was added to",
        )


def run(args, engine, prepared, baseline: Baseline | None, result: dict):
    """Score every plan, compare with the baseline, generate; fills ``result`` and returns it with the arrays."""
    tokenizer, config, wanted, prompts, stop, said = prepared
    arrays: dict[str, np.ndarray] = {}
    visitor = make_visitor(args, wanted[0], baseline)
    for plan in wanted:
        label = f"{args.model} {args.variant} {plan.convention}"
        scores = scoring.score(engine, plan, args.batch_tokens, visitor if plan is wanted[0] else None, label)
        if baseline:
            baselines.check_paired(plan.convention, scores.token, baseline)
            if {VARIANTS[name].precision for name in (args.variant, args.baseline)} == {"fp32"}:
                check_rounding(plan.convention, scores.nll, baseline.tokens[f"{plan.convention}/nll"])
        for key in ("nll", "block", "token"):
            arrays[f"{plan.convention}/{key}"] = getattr(scores, key)
        result["conventions"][plan.convention] = figures(plan, scores)
    kept = {}
    first = wanted[0].convention
    if args.variant == args.baseline:
        kept["plans"] = plans.arrays(wanted, plans.settings(args))
    if isinstance(visitor, divergence.Recorder):
        kept["logprobs"] = visitor.arrays(first)
    elif visitor:
        result["divergence"] = {first: visitor.summary()}
        arrays |= {f"{first}/{key}": array for key, array in visitor.arrays().items()}
    result |= judge(result["conventions"][first]["mean_nll"], architecture.vocabulary(config), baseline, first)
    for place, (index, prompt) in enumerate(prompts.items()):
        hang.at(f"generate text {place + 1} of {len(prompts)}")
        ids = generation.greedy(engine, prompt, args.generate_tokens, stop)
        result["generated"].append(
            {
                "prompt": PROMPTS[index],
                "text": tokenizer.decode(ids, skip_special_tokens=True),
                "token_ids": ids,
                "first_difference": generation.first_difference(ids, baseline.text(place)) if baseline else None,
            }
        )
    return result | said, arrays, kept


def check_rounding(convention: str, nll: np.ndarray, baseline: np.ndarray) -> None:
    """Raise CellFailure unless two float32 computations of the same tokens differ by rounding alone.

    nll, baseline: (n,) nats. What differs by more is another computation (an export that lost something), and no
    figure of it is one of the model.
    """
    differences = np.abs(nll.astype(np.float64) - baseline)
    if differences.mean() > ROUNDING:
        change = float((nll.astype(np.float64) - baseline).mean())
        raise CellFailure(
            "diverged",
            f"{convention}: in float32, as its baseline, but {differences.mean():.2g} nats a token away from it "
            f"({change:+.2g} on average), where rounding explains {ROUNDING:g}: it does not compute the same model",
        )


def make_visitor(args, plan: conventions.Plan, baseline: Baseline | None):
    """Records the baseline's log-probabilities, compares a cell with the recorded ones, or None."""
    if args.variant == args.baseline:
        limit = min(args.divergence_tokens, plan.tokens)
        return divergence.Recorder(limit) if limit > 0 else None
    if not baseline or not baseline.recorded:
        return None
    stored = str(baseline.recorded["convention"])
    if stored != plan.convention:
        raise UserError(
            f"the baseline's log-probabilities are of {stored}, not of {plan.convention}: evaluate the baseline again"
        )
    return divergence.Comparison(baseline.recorded)


def figures(plan: conventions.Plan, scores: scoring.Scores) -> dict:
    """A convention's entry: tokens, windows, how it was cut, mean NLL in nats a token, perplexity, tokens/s."""
    nll = scores.nll.astype(np.float64)
    entry = {
        "tokens": len(nll),
        "windows": len(plan.windows),
        "window_tokens": plan.length,
        "bos": plan.bos,
        "join": plan.join,
        "mean_nll": nll.mean(),
        "perplexity": perplexity(nll.mean()),
        "tokens_per_s": len(nll) / scores.seconds,
        **plan.facts,
    }
    if plan.convention == "study":
        # each row's mean loss, weighted by its tokens and not by the one fewer that it predicts
        sizes = np.array([len(window.tokens) for window in plan.windows])
        starts = np.cumsum(sizes - 1) - (sizes - 1)
        entry["paper_loss"] = float((np.add.reduceat(nll, starts) / (sizes - 1) * sizes).sum() / sizes.sum())
        entry["paper_perplexity"] = perplexity(entry["paper_loss"])
    if "words" in plan.facts:
        entry["word_perplexity"] = perplexity(nll.sum() / plan.facts["words"])
    return {name: float(value) if isinstance(value, np.floating) else value for name, value in entry.items()}


def perplexity(loss: float) -> float:
    """exp of a loss in nats; the largest float where that overflows."""
    return math.exp(min(loss, 709.0))


def judge(loss: float, vocabulary: int, baseline: Baseline | None, convention: str) -> dict:
    """Status and reason of a cell by its mean NLL: ``diverged`` when it is beyond reason."""
    if baseline:
        own = baseline.quality["conventions"][convention]["mean_nll"]
        if loss > math.log(vocabulary) and loss > own + BEYOND_REASON:
            reason = (
                f"{convention}: {loss:.2f} nats a token, worse than guessing among {vocabulary} tokens "
                f"({math.log(vocabulary):.2f}); the baseline has {own:.2f}"
            )
            return {"status": "diverged", "reason": reason}
    return {"status": "ok", "reason": ""}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> str:
    """Write ``arrays`` to ``path``; the sha256 of the file."""
    with files.atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return files.sha256(path)
