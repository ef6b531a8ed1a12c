"""Evaluation next to lm-evaluation-harness: word perplexity of both and their tokens per second, interleaved.

    python -m tests.bench.lm_eval_word --model results/demo/models/smollm2 --corpus results/demo/corpus/wiki.json \\
        --max-length 512 --max-tokens 2000 --rounds 3 --threads 2

Needs lm-eval 0.4.13 beside the locked packages. No network: the harness gets its own ``wikitext`` task with the
corpus's documents as a local file. Each round runs the harness, then this package, on the same loaded weights'
files; the time is that of the harness's own loglikelihood_rolling and of ``scoring.score``, tokenization left out
of ours and in theirs less than a percent. CPU seconds stand beside the wall's: on a shared machine they tell more.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import torch
from transformers import AutoTokenizer

from workflow.tradeoff import conventions, engines, evaluate, scoring
from workflow.tradeoff.variants import VARIANTS

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
    """lm-eval's own model and task on local pages. ``run``: word perplexity, wall and CPU seconds of the scoring."""

    def __init__(self, model: Path, pages: list[str], folder: Path, max_length: int, batch_size: int, device: str):
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
        inner = self.model.loglikelihood_rolling

        def timed(*args, **kwargs):
            result, self.seconds = clocked(inner, *args, **kwargs)
            return result

        self.model.loglikelihood_rolling = timed

    def run(self) -> tuple[float, tuple[float, float]]:
        from lm_eval import simple_evaluate

        result = simple_evaluate(
            self.model, tasks=["wikitext_local"], task_manager=self.manager, bootstrap_iters=0, verbosity="ERROR"
        )
        return result["results"]["wikitext_local"]["word_perplexity,none"], self.seconds


def shortened(corpus: dict, vocab: conventions.Vocabulary, max_tokens: int) -> tuple[list[str], list[int], list[str]]:
    """Rows, documents and pages of about ``max_tokens`` tokens from the corpus's start, for both to read."""
    rows, total = [], 0
    for row in corpus["rows"]:
        rows.append(row)
        total += len(vocab.encode(row))
        if total >= max_tokens:
            break
    documents = [start for start in corpus["documents"] if start < len(rows)]
    return rows, documents, ["\n".join(page) for page in conventions.pages(rows, documents)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=2000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--harness-batch", type=int, default=1, help="the harness's batch_size; 1 is its default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    vocab = conventions.vocabulary(AutoTokenizer.from_pretrained(args.model), "auto")
    rows, documents, pages = shortened(json.loads(args.corpus.read_text()), vocab, args.max_tokens)
    engine = engines.load(VARIANTS["torch-fp32"], args.model, args.model, args.device, args.threads)
    torch.set_num_threads(args.threads)
    plan = conventions.plan(f"word-{args.max_length}", rows, documents, vocab, engine.context)
    times: dict[str, list[tuple[float, float]]] = {"lm-eval": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(args.model, pages, Path(folder), args.max_length, args.harness_batch, args.device)
        for _ in range(args.rounds):
            theirs, seconds = harness.run()
            times["lm-eval"].append(seconds)
            scores, seconds = clocked(scoring.score, engine, plan, args.batch_tokens)
            times["ours"].append(seconds)
            ours = evaluate.figures(plan, scores)["word_perplexity"]
    print(f"{plan.tokens} tokens, {len(plan.windows)} windows of at most {args.max_length}, {args.rounds} rounds")
    for name, value in (("lm-eval", theirs), ("ours", ours)):
        wall, cpu = (plan.tokens / statistics.median(column) for column in zip(*times[name], strict=True))
        print(f"{name:8} {wall:9.1f} tokens/s {cpu:9.1f} tokens per CPU second  word perplexity {value:.6f}")
    for index, clock in enumerate(("wall", "CPU")):
        ratios = [a[index] / b[index] for a, b in zip(times["lm-eval"], times["ours"], strict=True)]
        print(f"ratio by {clock} {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")
    print(f"relative difference of the perplexities {abs(ours / theirs - 1):.1e}")


if __name__ == "__main__":
    main()
