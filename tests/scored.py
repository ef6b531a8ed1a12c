"""A small text: its file, plans over it, and their losses by the slow way, the oracle of whatever scores it."""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from workflow.tradeoff import corpus, loaded
from workflow.tradeoff.evaluate import conventions

ROWS = [f"{index} {line}\n" for index in range(6) for line in tiny.TEXT.splitlines()]
NAMES = ["windows-64", "strided-64-24", "study", "word-64", "llama.cpp"]


def write_corpus(path, rows, documents=(0,)):
    """Write ``rows`` as fetch does, under the name of the file, and return its path."""
    facts = {"name": path.stem, "sha256": "0", "license": "own", "documents": list(documents)}
    corpus.write(path, facts | {"digest": loaded.corpus_digest(facts | {"rows": rows})}, rows)
    return path


def make_plan(folder, name, bos, max_tokens=300):
    vocab = conventions.vocabulary(AutoTokenizer.from_pretrained(folder), bos)
    return conventions.plan(name, ROWS, [0, 9, 20], vocab, 512, max_tokens)


class Slow:
    """NLL of each scored token in float64: one forward pass per token, of that token's context alone."""

    def __init__(self, folder):
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    @torch.inference_mode()
    def logp(self, context):
        return torch.log_softmax(self.network(torch.tensor([context])).logits[0, -1], dim=-1).numpy()

    def nll(self, plan, limit):
        found = []
        for window in plan.windows:
            tokens = window.tokens.tolist()
            for at in range(len(tokens) - window.scored, len(tokens)):
                if len(found) == limit:
                    return np.array(found)
                found.append(-self.logp(tokens[:at])[tokens[at]])
        return np.array(found)
