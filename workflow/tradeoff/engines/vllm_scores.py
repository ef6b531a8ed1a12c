"""vLLM's log-probabilities, which come in the order of their size, by token id."""

import torch

from workflow.tradeoff.errors import CellFailure


def by_vocabulary(found, into: torch.Tensor, first: int) -> None:
    """Fill ``into`` (n, V) with rows ``first`` and on of log-probabilities as vLLM gives them.

    found: token ids and log-probabilities, each (n + first, V + 1), the token in the text ahead, then all from the
    likeliest to the least.
    """
    ids, values = (torch.as_tensor(part)[first:].to(into.device) for part in found[:2])
    rows, vocabulary = into.shape
    if tuple(values.shape) != (rows, vocabulary + 1) or ids.shape != values.shape:
        raise CellFailure(
            "error",
            f"vLLM gave log-probabilities {tuple(values.shape)}, where ({rows}, {vocabulary + 1}) were asked for",
        )
    into.scatter_(1, ids.long(), values.float())
