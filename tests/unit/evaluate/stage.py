"""What the tests of a cell's evaluation share: the stage from flags to files, and an engine with faults."""

import json
import math

import numpy as np
import torch

from tests import tiny
from tests.scored import NAMES, ROWS, write_corpus
from workflow.tradeoff.evaluate.__main__ import main as evaluate_main


class Stage:
    """Runs the stage on a corpus file, for any variant, with an engine of the test's choice."""

    main = staticmethod(evaluate_main)

    def __init__(self, folder, root):
        self.folder, self.root = folder, root
        self.corpus = root / "corpus.json"
        self.write_corpus(ROWS)

    def write_corpus(self, rows):
        write_corpus(self.corpus, rows)

    def path(self, variant):
        return self.root / "quality" / f"{variant}.json"

    def run(self, variant, *more, names=NAMES, baseline="torch-fp32"):
        base = "" if variant == baseline else str(self.path(baseline))
        folder, corpus, output = str(self.folder), str(self.corpus), str(self.path(variant))
        flags = ["--study", "s", "--model", "m", "--variant", variant, "--baseline", baseline, "--artifact", folder]
        flags += ["--model-folder", folder, "--corpus", corpus, "--baseline-quality", base, "--conventions", *names]
        flags += ["--max-tokens", "200", "--batch-tokens", "256", "--divergence-tokens", "90", "--generate-tokens", "6"]
        flags += ["--bos", "auto", "--device", "cpu", "--threads", "1", "--output", output, *more]
        self.main(flags)
        return json.loads(self.path(variant).read_text())

    def arrays(self, variant, suffix=".npz"):
        with np.load(self.root / "quality" / f"{variant}{suffix}") as stored:
            return dict(stored)


class Fake:
    """An engine of random but fixed logits, with a fault on demand."""

    context, device = 512, torch.device("cpu")

    def __init__(self, fault=None, scale=1.0):
        self.fault, self.scale = fault, scale

    def score(self, ids, first=0):
        if isinstance(self.fault, BaseException):
            raise self.fault
        values = torch.randn(*ids.shape, tiny.VOCAB, generator=torch.Generator().manual_seed(0)) * self.scale
        if self.fault == "nan":
            values[0, -1, 3] = math.nan
        if self.fault in ("all nan", "inf", "-inf"):
            values[:] = float(self.fault.removeprefix("all "))
        return values[:, first:]

    def prefill(self, ids):
        self.step = 0
        return torch.tensor([[65]])

    def decode(self, token):
        self.step += 1
        return torch.tensor([[256 if self.step == 2 else 66]])

    def synchronize(self):
        pass
