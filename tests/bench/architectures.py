"""Which architectures run, as which variants, and whether their NLL is transformers' own loss: docs/architectures.md.

    python -m tests.bench.architectures docs/architectures.md

Each model is tiny and random (tests/architectures.py), and goes through the workflow's own steps on the CPU: fetch,
prepare, load, score, decode, proof. tests/unit/test_architectures.py tries them again.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests import architectures, tiny
from workflow.tradeoff import engines, errors, files
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.evaluate import conventions, scoring
from workflow.tradeoff.fetch.__main__ import main as fetch
from workflow.tradeoff.prepare.__main__ import main as prepare
from workflow.tradeoff.summarize import gates
from workflow.tradeoff.variants import VARIANTS, Variant

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
FETCHED = "fetch"
COLUMNS = ("torch-fp32", "bnb-int8", "bnb-nf4", "onnx-fp32-kv", "onnx-int8-kv", "onnx-int4-kv", "gguf-q8_0")
TOLERANCE = 1e-4  # nats a token, of our mean NLL from transformers' own loss: both sum the same float32 logits
LENGTH, TOKENS, PROMPT, STEPS = 96, 300, 24, 4


class Attempt:
    """One architecture in ``folder``: what each column gives, a figure in words or why not in one line."""

    def __init__(self, name: str, folder: Path):
        self.folder, self.model = folder, folder / "model"
        self.source = architectures.build(folder / "source", name)
        vocab = conventions.Vocabulary(lambda text: list(text.encode()), None, 256)  # the tokenizer's ids are the bytes
        rows = [tiny.TEXT]
        self.plan = conventions.plan(f"windows-{LENGTH}", rows, [0], vocab, architectures.CONTEXT, TOKENS)

        self.fetched = said(self.fetch)

    def column(self, name: str) -> str:
        if name == FETCHED or not runs(self.fetched):
            return self.fetched
        return said(lambda: self.cell(VARIANTS[name]))

    def fetch(self) -> str:
        source = json.dumps({"source": "local", "path": str(self.source)})
        fetch(["model", "--name", "tiny", "--source", source, "--output", str(self.model)])
        return "yes"

    def cell(self, variant: Variant) -> str:
        """In float32 the difference of the mean NLL from the loss, of others the NLL's from the loss, both nats."""
        artifact = self.made(variant)
        engine = engines.load(variant, artifact, self.model, "cpu", 1)
        nll = scoring.score(engine, self.plan, LENGTH).nll.astype(np.float64).mean()
        decoded(engine, exact=not variant.quantized)
        if reason := gates.not_quantized(variant, engine.proof()):
            raise CellFailure("not_quantized", reason)
        difference = nll - self.loss()
        if variant.quantized:
            return f"{difference:+.4f}"
        if not abs(difference) <= TOLERANCE:
            raise CellFailure(
                "diverged", f"its mean NLL is {nll:.5f}, and transformers' own loss {nll - difference:.5f}"
            )
        return f"{abs(difference):.0e}"

    def made(self, variant: Variant) -> Path:
        """The folder that the variant runs, made by the workflow's own steps."""
        if variant.artifact == "model":
            return self.model
        output = self.folder / variant.artifact
        if output.is_dir():
            return output
        flags = ["--threads", "1", "--output", str(output)]
        if variant.engine == "onnx" and variant.quantizer == "none":
            prepare(["export", "--model-folder", str(self.model), "--cache", *flags])
        elif variant.engine == "onnx":
            exported, recipe = self.made(VARIANTS["onnx-fp32-kv"]), json.dumps(dict(variant.recipe))
            prepare(["quantize", "--input", str(exported), "--recipe", recipe, "--output", str(output)])
        else:
            prepare(["gguf", "--model-folder", str(self.model), "--recipe", json.dumps(dict(variant.recipe)), *flags])
        return output

    def loss(self) -> float:
        """transformers' own, by eager attention of the model as it was before fetching, over the same windows."""
        network = AutoModelForCausalLM.from_pretrained(self.source, dtype=torch.float32, attn_implementation="eager")
        losses = []
        with torch.inference_mode():
            for window in self.plan.windows:
                ids = torch.from_numpy(window.tokens)[None]
                losses.append(network.eval()(input_ids=ids, labels=ids).loss.double().item())
        return float(np.mean(losses))


def decoded(engine: Engine, exact: bool) -> None:
    """Decode past a window of attention through the cache; exact: CellFailure unless as whole passes would.

    What rounds activations by their largest gives another token in a pass than in a step.
    """
    ids = torch.tensor([list(tiny.TEXT.encode()[:PROMPT])])
    token, whole = engine.prefill(ids), ids
    for _ in range(STEPS):
        whole = torch.cat([whole, token.cpu()], dim=1)
        token = engine.decode(token)
        logits = engine.score(whole)[0, -1]
        # two tokens may be as likely but for rounding
        if exact and logits.max() - logits[token.item()] > 1e-3 * logits.std() + 1e-4:
            raise CellFailure("diverged", "a token that is decoded through the cache is not that of a whole pass")


def said(attempt: Callable[[], str]) -> str:
    """What an attempt gives; or the one line that a user reads, marked as a refusal."""
    try:
        return attempt()
    except (UserError, CellFailure) as failure:
        return f"no: {failure}"
    except Exception as error:  # as a cell records it
        return f"no: error: {errors.described(error)}"


def runs(cell: str) -> bool:
    """Whether a cell of the table, or what ``column`` gives, is a figure."""
    return cell[:1].isdigit() or cell[:1] in ("+", "-") or cell == "yes"


def table(text: str) -> dict[str, dict[str, str]]:
    """The table of the page, by architecture and column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: dict(zip(lines[0][1:], row[1:], strict=True)) for row in lines[2:]}


def page(found: dict[str, dict[str, str]]) -> str:
    """docs/architectures.md: a row an architecture, and below it why what does not run does not."""
    columns, reasons = (FETCHED, *COLUMNS), {}
    lines = [f"| architecture | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for name, cells in found.items():
        words = []
        for column in columns:
            cell = cells[column].removeprefix("no: ")
            if not runs(cells[column]):
                number = reasons.setdefault(plain(cell, name), len(reasons) + 1)
                cell = f"no ({number})"
            words.append(cell)
        lines.append(f"| {name} | {' | '.join(words)} |")
    why = [f"{number}. {reason}" for reason, number in reasons.items()]
    head = HEAD.format(count=len(found), version=transformers.__version__, tolerance=TOLERANCE)
    return "\n".join([head, *lines, "", "## Why not", "", *why]) + "\n"


def plain(reason: str, name: str) -> str:
    """A reason without this run's folders and what its architecture is called, fit for a line of Markdown."""
    kind = architectures.MODELS[name][0]
    called = rf"\b({kind}|{kind.replace('_', '')}forcausallm)\b"
    reason = re.sub(called, "…", re.sub(r"\S*/(model|source)\b", "this model", reason), flags=re.IGNORECASE)
    return reason.replace("<", "&lt;").replace("\n", " ")


HEAD = """# Which architectures run

Made by `python -m tests.bench.architectures docs/architectures.md`, with transformers {version} on a CPU; the rows are
the {count} of `tests/architectures.py`, each a tiny model with random weights. `tests/unit/test_architectures.py` holds
it. A cell that runs was fetched and prepared by the workflow, scored, decoded through its cache (in float32 to the
tokens of whole passes), and is quantized as its name says. The figure is how far its mean NLL is from transformers' own
loss with eager attention, in nats a token: in float32 at most {tolerance:g}, else the price of the quantization, which
random weights make small. A number in brackets stands for the reason below.
"""


def main(output: Path) -> None:
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    found = {}
    for name in architectures.MODELS:
        with tempfile.TemporaryDirectory() as folder:
            attempt = Attempt(name, Path(folder))
            found[name] = {column: attempt.column(column) for column in (FETCHED, *COLUMNS)}
        print(name, found[name], file=sys.stderr, flush=True)
    with files.atomic_file(output) as temporary:
        temporary.write_text(page(found))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
