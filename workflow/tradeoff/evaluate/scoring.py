"""Score the windows of a plan through an engine: the log-probability of every target, at the least cost.

Windows of one shape run as one batch, logits are asked for only where a target is scored, and the float32
log-softmax is taken over a few rows at a time. Nothing leaves the device before the per-token numbers are complete.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.evaluate.conventions import Plan
from workflow.tradeoff.run import hang

# elements of one float32 slab of log-probabilities: 64 MiB
SLAB = 1 << 24


class Visitor(Protocol):
    """Sees the log-probabilities of the first ``limit`` targets of a plan, in any order."""

    limit: int

    def __call__(self, positions: torch.Tensor, logp: torch.Tensor, targets: torch.Tensor) -> None:
        """positions (n,) in the plan's order; logp (n, V) float32; targets (n,); all on the engine's device."""


@dataclass(frozen=True)
class Scores:
    """nll, block, token: (n,), one entry per target in the plan's order. seconds: without what the visitor took."""

    nll: np.ndarray
    block: np.ndarray
    token: np.ndarray
    seconds: float


def batches(plan: Plan, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of windows of one shape, at most ``batch_tokens`` input tokens together (one window at least)."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, window in enumerate(plan.windows):
        shapes.setdefault((len(window.inputs), window.scored), []).append(index)
    for (length, _), members in shapes.items():
        size = max(1, batch_tokens // length)
        for start in range(0, len(members), size):
            yield members[start : start + size]


@torch.inference_mode()
def score(engine: Engine, plan: Plan, batch_tokens: int, visitor: Visitor | None = None, label: str = "") -> Scores:
    """Score every window of ``plan``.

    Raises CellFailure ``diverged`` when a log-probability is NaN or infinite.
    """
    counts = np.array([window.scored for window in plan.windows])
    starts = np.cumsum(counts) - counts
    nll = torch.empty(plan.tokens, dtype=torch.float32, device=engine.device)
    visiting = 0.0
    engine.synchronize()
    begun = time.perf_counter()
    # a log file gets a line now and then, a terminal a living bar
    bar = tqdm(
        total=len(plan.windows),
        desc=label or plan.convention,
        unit="window",
        mininterval=0.5 if sys.stderr.isatty() else 20,
        maxinterval=60,
        file=sys.stderr,
    )
    with bar:
        for members in batches(plan, batch_tokens):
            windows = [plan.windows[index] for index in members]
            hang.at(f"score {plan.convention}, {bar.n} of {bar.total} windows done")
            scored = windows[0].scored
            inputs = torch.from_numpy(np.stack([window.inputs for window in windows]))
            logits = engine.score(inputs, first=inputs.shape[1] - scored).flatten(0, 1)
            targets = torch.from_numpy(np.concatenate([window.targets for window in windows])).to(engine.device)
            where = np.concatenate([np.arange(starts[index], starts[index] + scored) for index in members])
            positions = torch.from_numpy(where).to(engine.device)
            rows = max(1, SLAB // logits.shape[-1])
            for start in range(0, len(logits), rows):
                part = slice(start, start + rows)
                logp = torch.log_softmax(logits[part], dim=-1, dtype=torch.float32)
                nll[positions[part]] = -logp.gather(1, targets[part, None])[:, 0]
                if visitor and where[part].min() < visitor.limit:
                    visiting += _visit(engine, visitor, positions[part], logp, targets[part])
            del logits
            bar.update(len(members))
    result = nll.cpu().numpy()
    seconds = time.perf_counter() - begun - visiting
    wrong = int((~np.isfinite(result)).sum())
    if wrong:
        raise CellFailure(
            "diverged", f"{wrong} of {len(result)} log-probabilities are NaN or infinite ({plan.convention})"
        )
    return Scores(
        result,
        np.repeat(np.array([window.block for window in plan.windows], dtype=np.int32), counts),
        np.concatenate([window.targets for window in plan.windows]).astype(np.int32),
        seconds,
    )


def _visit(engine: Engine, visitor: Visitor, positions, logp, targets) -> float:
    """Hand over the rows that the visitor wants; the seconds it took, since they are not the cost of scoring."""
    engine.synchronize()
    begun = time.perf_counter()
    wanted = positions < visitor.limit
    visitor(positions[wanted], logp[wanted], targets[wanted])
    engine.synchronize()
    return time.perf_counter() - begun
