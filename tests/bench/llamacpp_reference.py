"""The engine and the recipe of GGUF files held against llama.cpp's own programs, on the same files.

    python -m tests.bench.llamacpp_reference quantize   --bin /path/to/llama.cpp/bin --work /tmp/gguf q8_0 q4_k_m …
    python -m tests.bench.llamacpp_reference perplexity --bin … --work /tmp/gguf --model M --corpus C --chunks 16 q8_0 …
    python -m tests.bench.llamacpp_reference divergence --bin … --work /tmp/gguf --model M --corpus C --chunks 16 q8_0 …
    python -m tests.bench.llamacpp_reference speed      --bin … --work /tmp/gguf --rounds 5 q8_0 …
    python -m tests.bench.llamacpp_reference overhead   --work /tmp/gguf q8_0 …

``--work`` holds what ``tests.bench.llamacpp_table`` made, gguf-f32 and the types that are named. ``--bin`` holds
llama-quantize, llama-perplexity and llama-bench, built of the release that the wheel has: docs/llamacpp.md says how.
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.bench.llamacpp_table import plan_of
from workflow.tradeoff import files
from workflow.tradeoff.engines.llamacpp import FILE, LlamaEngine
from workflow.tradeoff.evaluate import divergence, prose, scoring
from workflow.tradeoff.gguf_reader import Reader
from workflow.tradeoff.measure.timed import take

PROMPT, NEW = 64, 64  # tokens of the speed comparison


def call(args, program: str, *flags: object) -> str:
    command = [args.bin / program, *flags]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def quantize(args) -> None:
    """Every tensor of a file of ours is of the type and has the bytes that llama-quantize gives it."""
    for mix in args.mixes:
        with tempfile.TemporaryDirectory() as folder:
            theirs = Path(folder) / "theirs.gguf"
            call(args, "llama-quantize", args.work / "gguf-f32" / FILE, theirs, mix.upper(), 2)
            expected = {tensor.name: tensor for tensor in Reader(theirs).tensors}
            found = {tensor.name: tensor for tensor in Reader(args.work / f"gguf-{mix}" / FILE).tensors}
            types = sum(found[name].tensor_type != tensor.tensor_type for name, tensor in expected.items())
            other = [name for name, tensor in expected.items() if not np.array_equal(found[name].data, tensor.data)]
        same = found.keys() == expected.keys()
        print(f"{mix}: {len(expected)} tensors, same names: {same}, other types: {types}, other bytes: {len(other)}")


def text_of(args, folder: str) -> Path:
    path = Path(folder) / "corpus.txt"
    path.write_text("".join(prose.raw_pieces(files.read_json(args.corpus)["rows"])), newline="")
    return path


def perplexity(args) -> None:
    plan = plan_of(args.model, args.corpus, "llama.cpp", args.chunks * 255)
    with tempfile.TemporaryDirectory() as folder:
        text = text_of(args, folder)
        for mix in args.mixes:
            file = args.work / f"gguf-{mix}" / FILE
            said = call(args, "llama-perplexity", "-m", file, "-f", text, "-c", 512, "--chunks", args.chunks, "-t", 2)
            theirs, error = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", said).groups()
            nll = scoring.score(LlamaEngine(file, None, "cpu", 2, 0), plan, 2048).nll.astype(np.float64)
            ours = np.exp(nll.mean())
            print(f"{mix}: ours {ours:.4f}, llama-perplexity {theirs} ± {error}, apart {ours - float(theirs):+.4f}")


def divergences(args) -> None:
    plan = plan_of(args.model, args.corpus, "llama.cpp", args.chunks * 255)
    base = args.work / "gguf-f32" / FILE
    recorder = divergence.Recorder(plan.tokens)
    scoring.score(LlamaEngine(base, None, "cpu", 2, 0), plan, 2048, recorder)
    recorded = recorder.arrays(plan.convention)
    with tempfile.TemporaryDirectory() as folder:
        logits, text = Path(folder) / "base.kld", text_of(args, folder)
        flags = ["-f", text, "-c", 512, "--chunks", args.chunks, "-t", 2, "--kl-divergence-base", logits]
        call(args, "llama-perplexity", "-m", base, *flags)
        for mix in args.mixes:
            file = args.work / f"gguf-{mix}" / FILE
            said = call(
                args, "llama-perplexity", "-m", file, "--kl-divergence-base", logits, "--kl-divergence", "-t", 2
            )
            theirs, error = re.search(r"Mean\s+KLD:\s+([\d.]+)\s+±\s+([\d.]+)", said).groups()
            visitor = divergence.Comparison(recorded)
            scoring.score(LlamaEngine(file, None, "cpu", 2, 0), plan, 2048, visitor)
            kl = visitor.arrays()["kl"].astype(np.float64)
            print(f"{mix}: ours {kl.mean():.6f}, --kl-divergence {theirs} ± {error}, {len(kl)} tokens")


def speed(args) -> None:
    """Decode tokens/s after a prompt, in turns with llama-bench; the median of the rounds of each."""
    for mix in args.mixes:
        file = args.work / f"gguf-{mix}" / FILE
        engine = LlamaEngine(file, None, "cpu", 2, 0)
        engine.reserve(PROMPT + NEW)
        ids = torch.arange(1, PROMPT + 1)[None]
        take(engine, ids, 8)
        ours, theirs = [], []
        for _ in range(args.rounds):
            flags = ["-p", 0, "-n", NEW, "-d", PROMPT, "-t", 2, "-r", 3, "-o", "json"]
            said = subprocess.run(
                [str(part) for part in (args.bin / "llama-bench", "-m", file, *flags)],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            theirs += json.loads(said)[0]["samples_ts"]
            ours += [(NEW - 1) / sum(take(engine, ids, NEW)["itl_s"]) for _ in range(3)]
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"{mix}: ours {a:.1f} tokens/s, llama-bench {b:.1f}, ratio {a / b:.3f}", flush=True)


class Still:
    """llama.cpp's library, but for the pass itself, which is left out."""

    def __init__(self, library):
        self.library = library

    def __getattr__(self, name: str):
        return getattr(self.library, name)

    def llama_decode(self, *_) -> int:
        return 0


def overhead(args) -> None:
    """What driving a step from Python costs: all of it but llama.cpp's own pass, beside a whole step; the least of the
    rounds, since others can only add to it.
    """
    for mix in args.mixes:
        engine = LlamaEngine(args.work / f"gguf-{mix}" / FILE, None, "cpu", 2, 0)
        engine.reserve(PROMPT + NEW)
        ids = torch.arange(1, PROMPT + 1)[None]
        whole = min(min(take(engine, ids, NEW)["itl_s"]) for _ in range(args.rounds))
        engine.decoder.lib = Still(engine.lib)
        engine.prefill = lambda ids: ids[:, :1]  # the context is as full as the last round left it
        spent = []
        for _ in range(args.rounds):
            engine.decoder.held = PROMPT
            spent.append(min(take(engine, ids, NEW)["itl_s"]))
        share = min(spent) / whole
        print(f"{mix}: {1e6 * min(spent):.0f} of {1e6 * whole:.0f} microseconds a step, {share:.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {"quantize": quantize, "perplexity": perplexity, "divergence": divergences, "speed": speed}
    known["overhead"] = overhead
    parser.add_argument("what", choices=known)
    parser.add_argument("--bin", type=Path, help="of all but overhead")
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--chunks", type=int, default=16, help="windows of 512 tokens, of which 255 are scored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("mixes", nargs="+")
    args = parser.parse_args()
    known[args.what](args)


if __name__ == "__main__":
    main()
