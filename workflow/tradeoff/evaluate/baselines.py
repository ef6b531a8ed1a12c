"""The baseline's own evaluation, which every other cell of its model is compared with token by token."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.tradeoff import files, loaded
from workflow.tradeoff.errors import UserError

KEPT = ("logprobs", "plans")  # what lies beside a baseline's scores for the other cells of its model


@dataclass
class Baseline:
    """What a cell is compared with: the baseline's JSON, its per-token arrays, its compact log-probabilities, and
    what it scored (``plans``).
    """

    quality: dict
    tokens: dict[str, np.ndarray]
    recorded: dict[str, np.ndarray]
    plans: dict[str, np.ndarray]

    def text(self, index: int) -> list[int]:
        return self.quality["generated"][index]["token_ids"]


def read(path: str) -> Baseline | None:
    """The files of a baseline; None without a path, or when the baseline itself has no figures."""
    if not path:
        return None
    quality = files.read_json(path)
    if quality["status"] != "ok":
        print(f"the baseline has no figures ({quality['status']}: {quality['reason']}): no divergence from it")
        return None
    return Baseline(quality, *(_load(path, quality, name) for name in ("scores", *KEPT)))


def compared_with(path: str, own: Mapping[str, str]) -> dict[str, str]:
    """Digests of the baseline's artifact and of its scores; of a cell without ``path`` is its artifact its baseline.

    own: the cell's digests of its model and corpus; UserError when the baseline was evaluated on other ones.
    """
    if not path:
        return {"baseline": own["artifact"]}
    theirs = files.read_json(path).get("digests", {})
    for role in ("model", "corpus"):
        if theirs.get(role) != own[role]:
            raise UserError(
                f"{path} was evaluated with the {role} {loaded.short(theirs.get(role, 'unknown'))}, and this cell's is "
                f"{loaded.short(own[role])}: evaluate the baseline again"
            )
    return {"baseline": theirs["artifact"], "baseline_scores": theirs["scores"]}


def beside(path: Path | str, suffix: str) -> Path:
    """The file that belongs to a quality JSON: its name with ``suffix`` in place of ``.json``."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".json") + suffix)


def _load(quality_path: str, quality: dict, name: str) -> dict[str, np.ndarray]:
    path = beside(quality_path, ".npz" if name == "scores" else f".{name}.npz")
    if not path.is_file():
        raise UserError(f"{path} is missing beside the baseline's JSON: evaluate the baseline again")
    if (found := files.sha256(path)) != quality["digests"][name]:
        raise UserError(
            f"{path} has the sha256 {loaded.short(found)}, and the JSON beside it names "
            f"{loaded.short(quality['digests'][name])}: evaluate the baseline again"
        )
    with np.load(path) as stored:
        return dict(stored)


def check_paired(convention: str, tokens: np.ndarray, baseline: Baseline) -> None:
    """Every comparison is over the same tokens in the same order, or it is none."""
    if not np.array_equal(tokens, baseline.tokens.get(f"{convention}/token")):
        raise UserError(
            f"{convention}: the baseline scored other tokens (another corpus, tokenizer or evaluate setting): "
            "evaluate the baseline again"
        )
