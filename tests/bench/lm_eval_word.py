"""Evaluation next to lm-evaluation-harness: tokens per second of both, in turns, and how far their values are apart.

    python -m tests.bench.lm_eval_word --model results/demo/models/smollm2 --corpus results/demo/corpus/wiki.json \\
        --settings word:1 word:4 word-512:1 word-512:4 --max-tokens 4000 --rounds 5 --threads 2

A setting is a convention and the harness's batch_size: ``word:1`` is what its command line does by default, with the
model's whole context. Needs lm-eval 0.4.13 beside the locked packages. No network: the harness gets its own
``wikitext`` task with whole documents, drawn from the corpus with a fixed seed, as a local file.

Each side has a process of its own, since ``--keep`` sets the allocator of ours, and they take turns: A B, B A, …
The time is that of the harness's own loglikelihood_rolling and, of ours, of ``conventions.plan`` and
``scoring.score``: both tokenize in it. CPU seconds stand beside the wall's: on a shared machine they tell more.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import torch
from transformers import AutoTokenizer

from tests.bench.allocator import keep_freed_memory
from workflow.tradeoff import engines, stats
from workflow.tradeoff.evaluate import conventions, prose, scoring
from workflow.tradeoff.variants import VARIANTS

THEIRS, OURS = "lm-eval", "ours"
SETTINGS = ["word:1", "word:4", "word-512:1", "word-512:4"]
HEADER = """
| setting | tokens | lm-eval tokens/s | ours tokens/s | ratio | per CPU second | NLL of a document apart, at most |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""

TASK = """task: wikitext_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {pages}}}, cache_dir: {cache}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: !function preprocess.wikitext_detokenizer
process_results: !function preprocess.process_results
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
metadata: {{version: 2.0}}
"""


def clocked(function, *args, **kwargs):
    """The function's result and (wall, CPU) seconds that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **kwargs)
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


class Harness:
    """lm-eval's own model and task on local pages.

    ``run``: word perplexity, wall and CPU seconds of the scoring; ``documents``: NLL of each document then.
    """

    def __init__(self, model: Path, pages: list[str], folder: Path, max_length, batch_size, device: str):
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        lines = "".join(json.dumps({"page": page}) + "\n" for page in pages)
        (folder / "pages.jsonl").write_text(lines)
        (folder / "preprocess.py").write_text(
            "from lm_eval.tasks.wikitext.preprocess_wikitext import *  # noqa: F403\n"
        )
        (folder / "task.yaml").write_text(TASK.format(pages=folder / "pages.jsonl", cache=folder / "cache"))
        self.manager = TaskManager(include_path=str(folder), include_defaults=False)
        self.model = HFLM(
            pretrained=str(model), device=device, dtype="float32", max_length=max_length, batch_size=batch_size
        )
        self.seconds = (0.0, 0.0)
        self.documents: list[float] = []
        inner = self.model.loglikelihood_rolling

        def timed(*args, **kwargs):
            result, self.seconds = clocked(inner, *args, **kwargs)
            self.documents = [-value for value in result]
            return result

        self.model.loglikelihood_rolling = timed

    def run(self) -> tuple[float, tuple[float, float]]:
        from lm_eval import simple_evaluate

        result = simple_evaluate(
            self.model, tasks=["wikitext_local"], task_manager=self.manager, bootstrap_iters=0, verbosity="ERROR"
        )
        return result["results"]["wikitext_local"]["word_perplexity,none"], self.seconds


@dataclass(frozen=True)
class Turn:
    """One evaluation: wall and CPU seconds, NLL of each document, number of scored tokens (of ours, else 0)."""

    seconds: tuple[float, float]
    documents: list[float]
    tokens: int


def sampled(corpus: dict, vocab: conventions.Vocabulary, max_tokens: int) -> tuple[list[str], list[int]]:
    """Rows and documents' first rows of documents drawn (with a fixed seed) until they have ``max_tokens`` tokens."""
    bounds = list(pairwise([*corpus["documents"], len(corpus["rows"])]))
    rows: list[str] = []
    starts: list[int] = []
    tokens = 0
    for index in np.random.default_rng(0).permutation(len(bounds)):
        document = corpus["rows"][slice(*bounds[index])]
        starts.append(len(rows))
        rows += document
        tokens += sum(len(vocab.encode(row)) for row in document)
        if tokens >= max_tokens:
            break
    return rows, starts


def harness_turns(args, convention: str, batch: str, folder: Path):
    """A function that lets the harness evaluate once."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows, starts = sampled(
        json.loads(args.corpus.read_text()), conventions.vocabulary(tokenizer, "auto"), args.max_tokens
    )
    pages = ["\n".join(page) for page in prose.pages(rows, starts)]
    length = int(convention.partition("-")[2] or 0) or None
    size = int(batch) if batch.isdigit() else batch
    harness = Harness(args.model, pages, folder, length, size, args.device)

    def turn() -> Turn:
        _, seconds = harness.run()
        return Turn(seconds, harness.documents, 0)

    return turn


def our_turns(args, convention: str):
    """A function that lets this package evaluate once."""
    if args.keep:
        keep_freed_memory()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows, starts = sampled(
        json.loads(args.corpus.read_text()), conventions.vocabulary(tokenizer, "auto"), args.max_tokens
    )
    engine = engines.load(VARIANTS["torch-fp32"], args.model, args.model, args.device, args.threads)

    def evaluation():
        # a vocabulary of its own: it remembers what it has encoded
        vocab = conventions.vocabulary(tokenizer, "auto")
        plan = conventions.plan(convention, rows, starts, vocab, engine.context)
        return plan, scoring.score(engine, plan, args.batch_tokens)

    def turn() -> Turn:
        (plan, scores), seconds = clocked(evaluation)
        documents = np.bincount(scores.block, weights=scores.nll.astype(np.float64))
        return Turn(seconds, documents.tolist(), plan.tokens)

    return turn


def serve(side: str, args, setting: str, pipe) -> None:
    torch.set_num_threads(args.threads)
    convention, _, batch = setting.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        turn = our_turns(args, convention) if side == OURS else harness_turns(args, convention, batch, Path(folder))
        while pipe.recv():
            pipe.send(turn())


class Worker:
    """A process of one side that evaluates when it is told to."""

    def __init__(self, context, side: str, args, setting: str):
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(side, args, setting, other), daemon=True)
        self.process.start()
        other.close()

    def turn(self) -> Turn:
        self.pipe.send(True)
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send(False)
        self.process.join()


def row(setting: str, rounds: dict[str, list[Turn]]) -> str:
    """The table's row: medians of tokens/s, ratios of the rounds with 95% intervals, largest relative difference."""
    tokens = rounds[OURS][0].tokens
    theirs, ours = (np.array([turn.seconds for turn in rounds[side]]) for side in (THEIRS, OURS))
    ratios = [stats.paired_ratio(theirs[:, [clock]], ours[:, [clock]]) for clock in (0, 1)]
    nll = [np.array(rounds[side][0].documents) for side in (THEIRS, OURS)]
    cells = [
        setting,
        f"{tokens:,}",
        *(f"{tokens / np.median(times[:, 0]):.0f}" for times in (theirs, ours)),
        *(f"{ratio.value:.2f} × [{ratio.low:.2f}, {ratio.high:.2f}]" for ratio in ratios),
        f"{np.abs(nll[1] / nll[0] - 1).max():.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="CONVENTION:BATCH", help="of the harness")
    parser.add_argument("--max-tokens", type=int, default=4000, help="about so many tokens of whole documents")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="of ours; the config's default is 1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="ours with keep_freed_memory, which a cell does not have")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{args.device}, {args.threads} threads, {args.rounds} rounds, load before {os.getloadavg()[0]:.1f}")
    print(HEADER, flush=True)
    for setting in args.settings:
        workers = {side: Worker(context, side, args, setting) for side in (THEIRS, OURS)}
        rounds: dict[str, list[Turn]] = {side: [] for side in workers}
        for index in range(args.rounds + 1):
            for side in (THEIRS, OURS) if index % 2 else (OURS, THEIRS):
                turn = workers[side].turn()
                # the first turn of each warms it up
                if index:
                    rounds[side].append(turn)
        for worker in workers.values():
            worker.stop()
        print(row(setting, rounds), flush=True)
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
