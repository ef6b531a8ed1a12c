"""Divergence of a cell from its baseline over the full vocabulary, without holding two models in memory.

The baseline's log-probabilities are kept in two bytes each. A row is scaled by its own range R (from its largest
entry down to its smallest, at most DEEPEST nats) and coded by the square root, c = 65535 sqrt(-log p / R), so that
likely tokens are kept finer than unlikely ones; decoding normalizes the row again. The distribution that was
decoded differs from the true one by chi2 = sum p (p'/p - 1)^2, which is measured while coding and stored.
What this does to a KL divergence is bounded in ``error_bound``.
"""

import numpy as np
import torch

LEVELS = 65535
DEEPEST = 100.0  # nats; e^-100 is below float32's smallest normal number
PERCENTILES = (50, 90, 99)


def encode(logp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Code rows of log-probabilities (n, V) float32: codes (n, V) int32 in 0..65535, ranges (n,), chi2 (n,)."""
    logp = logp.clamp(min=-DEEPEST)
    ranges = -logp.amin(dim=1)
    codes = (logp / -ranges[:, None]).clamp(0, 1).sqrt().mul(LEVELS).round().to(torch.int32)
    ratio = torch.expm1(decode(codes, ranges) - logp)
    return codes, ranges, (logp.exp() * ratio.square()).sum(dim=1)


def decode(codes: torch.Tensor, ranges: torch.Tensor) -> torch.Tensor:
    """Normalized log-probabilities (n, V) float32 of ``encode``'s codes (any integer dtype)."""
    root = codes.to(torch.float32).div_(LEVELS)
    return torch.log_softmax(root.square_().mul_(-ranges[:, None]), dim=-1)


def error_bound(square: torch.Tensor, chi2: torch.Tensor) -> torch.Tensor:
    """Most that coding the baseline changes a token's KL divergence, in nats (n,).

    With p the true and p' the decoded baseline, q the cell, f = log p/q:
    KL(p'||q) - KL(p||q) = sum (p' - p) f + KL(p'||p). The first term is at most sqrt(chi2) sqrt(sum p f^2) by
    Cauchy and Schwarz, the second at most chi2. square: sum p' (log p'/q)^2; Minkowski's inequality turns it into
    a bound of sum p f^2, and 1.01 covers p/p' (a code is at most 0.0016 nats off, and so is the row's sum).
    """
    root = chi2.sqrt()
    return 1.01 * root * (square.sqrt() + 1.01 * root) + chi2


def compare(base: torch.Tensor, cell: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Per token, from log-probabilities (n, V) float32 of the baseline and the cell, and targets (n,):

    kl: KL(baseline || cell) in nats; dp: p_cell - p_baseline of the target; square: sum p (log p/q)^2, for
    ``error_bound``. Each (n,).
    """
    cell = cell.clamp(min=-DEEPEST)
    p = base.exp()
    difference = base - cell
    weighted = p * difference
    at = targets[:, None]
    return {
        # it is never negative; float32 sums may be, by their rounding
        "kl": weighted.sum(dim=1).clamp(min=0),
        "dp": (cell.gather(1, at).exp() - p.gather(1, at))[:, 0],
        "square": weighted.mul_(difference).sum(dim=1),
    }


class Recorder:
    """A visitor that keeps the first ``limit`` rows of the baseline in compact form."""

    def __init__(self, limit: int):
        self.limit = limit
        self.codes: np.ndarray | None = None
        self.ranges = np.zeros(limit, dtype=np.float32)
        self.chi2 = np.zeros(limit, dtype=np.float32)
        self.top = np.zeros(limit, dtype=np.int32)
        self.token = np.zeros(limit, dtype=np.int32)

    def __call__(self, positions: torch.Tensor, logp: torch.Tensor, targets: torch.Tensor) -> None:
        if self.codes is None:
            self.codes = np.zeros((self.limit, logp.shape[1]), dtype=np.uint16)
        at = positions.cpu().numpy()
        codes, ranges, chi2 = encode(logp)
        self.codes[at] = codes.cpu().numpy()
        self.ranges[at] = ranges.cpu().numpy()
        self.chi2[at] = chi2.cpu().numpy()
        # kept beside the codes, in which the two most likely tokens may fall together
        self.top[at] = logp.argmax(dim=1).cpu().numpy()
        self.token[at] = targets.cpu().numpy()

    def arrays(self, convention: str) -> dict[str, np.ndarray]:
        """What the file of log-probabilities holds; empty when nothing was recorded."""
        if self.codes is None:
            return {}
        names = ("codes", "ranges", "chi2", "top", "token")
        return {"convention": np.array(convention), **{name: getattr(self, name) for name in names}}


class Comparison:
    """A visitor that compares the cell's rows with a recorded baseline (``Recorder.arrays``)."""

    def __init__(self, recorded: dict[str, np.ndarray]):
        self.recorded = recorded
        self.limit = len(recorded["token"])
        self.kl = np.zeros(self.limit, dtype=np.float32)
        self.dp = np.zeros(self.limit, dtype=np.float32)
        self.same_top = np.zeros(self.limit, dtype=bool)
        self.bound = np.zeros(self.limit, dtype=np.float32)

    def __call__(self, positions: torch.Tensor, logp: torch.Tensor, targets: torch.Tensor) -> None:
        at = positions.cpu().numpy()
        stored = {name: self.recorded[name][at] for name in ("ranges", "chi2", "top")}
        ranges, chi2, top = (torch.from_numpy(array).to(logp.device) for array in stored.values())
        # torch has few operations on uint16
        codes = torch.from_numpy(self.recorded["codes"][at].astype(np.int32)).to(logp.device)
        result = compare(decode(codes, ranges), logp, targets)
        self.kl[at] = result["kl"].cpu().numpy()
        self.dp[at] = result["dp"].cpu().numpy()
        self.same_top[at] = (logp.argmax(dim=1) == top).cpu().numpy()
        self.bound[at] = error_bound(result["square"], chi2).cpu().numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Per token, in the plan's order."""
        return {"kl": self.kl, "dp": self.dp, "same_top": self.same_top}

    def summary(self) -> dict:
        return summarize(self.kl, self.dp, self.same_top, self.bound)


def summarize(kl: np.ndarray, dp: np.ndarray, same_top: np.ndarray, bound: np.ndarray) -> dict:
    """Means, percentiles and their standard errors over tokens, as llama.cpp's perplexity tool gives them.

    Tokens are taken as independent, as there. A percentile's error is a quarter of its 95% order-statistic
    interval. dp_rms's error follows from that of the mean square. compaction_error_bound: of kl_mean, in nats.
    """
    kl, dp = np.asarray(kl, dtype=np.float64), np.asarray(dp, dtype=np.float64)
    count = len(kl)
    result = {"tokens": count, "kl_mean": kl.mean(), "kl_sem": _sem(kl), "kl_max": kl.max()}
    ordered = np.sort(kl)
    for percent in PERCENTILES:
        share = percent / 100
        spread = 1.96 * np.sqrt(count * share * (1 - share))
        low, high = np.clip([count * share - spread, count * share + spread], 0, count - 1).astype(int)
        result[f"kl_p{percent}"] = np.percentile(kl, percent)
        result[f"kl_p{percent}_sem"] = (ordered[high] - ordered[low]) / 4
    rms = np.sqrt(np.square(dp).mean())
    result |= {
        "dp_mean": dp.mean(),
        "dp_mean_sem": _sem(dp),
        "dp_rms": rms,
        "dp_rms_sem": _sem(np.square(dp)) / (2 * rms) if rms else 0.0,
        "same_top": same_top.mean(),
        "same_top_sem": _sem(same_top.astype(np.float64)),
        "compaction_error_bound": np.asarray(bound, dtype=np.float64).mean(),
    }
    return {name: value if name == "tokens" else float(value) for name, value in result.items()}


def _sem(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
