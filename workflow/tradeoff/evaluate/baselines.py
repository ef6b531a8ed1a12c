"""The baseline's own evaluation, which every other cell of its model is compared with token by token."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError


@dataclass
class Baseline:
    """What a cell is compared with: the baseline's JSON, its per-token arrays and its compact log-probabilities."""

    quality: dict
    tokens: dict[str, np.ndarray]
    recorded: dict[str, np.ndarray]

    def text(self, index: int) -> list[int]:
        return self.quality["generated"][index]["token_ids"]


def read(path: str) -> Baseline | None:
    """The three files of a baseline; None without a path, or when the baseline itself has no figures."""
    if not path:
        return None
    quality = files.read_json(path)
    if quality["status"] != "ok":
        print(f"the baseline has no figures ({quality['status']}: {quality['reason']}): no divergence from it")
        return None
    return Baseline(quality, _load(beside(path, ".npz")), _load(beside(path, ".logprobs.npz")))


def beside(path: Path | str, suffix: str) -> Path:
    """The file that belongs to a quality JSON: its name with ``suffix`` in place of ``.json``."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".json") + suffix)


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path} is missing beside the baseline's JSON: evaluate the baseline again")
    with np.load(path) as stored:
        return dict(stored)


def check_paired(convention: str, tokens: np.ndarray, baseline: Baseline) -> None:
    """Every comparison is over the same tokens in the same order, or it is none."""
    if not np.array_equal(tokens, baseline.tokens.get(f"{convention}/token")):
        raise UserError(
            f"{convention}: the baseline scored other tokens (another corpus, tokenizer or evaluate setting): "
            "evaluate the baseline again"
        )
