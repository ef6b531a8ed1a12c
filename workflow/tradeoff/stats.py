"""Statistics of a study, computed from raw samples: intervals, paired ratios, paired accuracy, verdicts.

The unit of speed is the replicate, a fresh process: samples of one process share its memory layout, its clock and
its neighbours, so a thousand of them are not a thousand observations. With the few replicates that a study can
pay for, a bootstrap over them is far too narrow (two replicates: it covers about half of what it promises), so
below FEW replicates the interval is Student's t on the logarithms of the replicates' medians, which keeps its
promise at any number when these are about normal. From FEW replicates on it is a bootstrap (SciPy). A ratio is always
t, over pairs of processes that took turns, with what stopping at the width that was asked for does to it.
The same is done for accuracy, over blocks of text. Everything random takes a seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflow.tradeoff import precision
from workflow.tradeoff.precision import t_quantile

FEW = 8  # replicates below which the interval is Student's t
FEW_BLOCKS = 20  # the same for blocks of text, whose sizes differ
RESAMPLES = 2000
TIE = 0.1  # of a speed: a difference that small is none to whoever deploys; an interval within it is a tie
NOTHING = "one observation: no interval"
# each replicate by its samples, or by one figure
Replicates = Sequence[Sequence[float] | float]


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds the true one with probability ``level``.

    low and high are NaN where nothing can be said. n: replicates, pairs or blocks. method: in words, for a table.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95

    @property
    def relative_width(self) -> float:
        """Half the interval's width over the value: what a cell's noise is judged by. NaN where there is none."""
        return (self.high - self.low) / (2 * abs(self.value)) if self.value else math.nan


def median_interval(replicates: Replicates, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Interval of the median over replicates; ``replicates``: each one's samples, or its one figure, all positive.

    Each replicate counts once, by the median of its samples; the value is the median of these. With one replicate
    the interval is a bootstrap over its samples: what another process would give, it does not say.
    Raises ValueError without samples or with one that is not positive.
    """
    arrays = _positive(replicates)
    values = np.array([np.median(array) for array in arrays])
    value = float(np.median(values))
    if len(arrays) == 1:
        low, high = _bootstrap(np.median, arrays[0], level, seed)
        return Interval(value, low, high, 1, "bootstrap over samples of one process", level)
    if len(arrays) < FEW:
        _, low, high = (math.exp(bound) for bound in _t_interval(np.log(values), level))
        # it is centred on the geometric mean; the median shown may lie outside when replicates are very uneven
        return Interval(value, min(low, value), max(high, value), len(arrays), "t over log replicates", level)
    low, high = _bootstrap(np.median, values, level, seed)
    return Interval(value, low, high, len(arrays), "bootstrap over replicates", level)


def paired_ratio(pairs: Sequence[Sequence[float]], first: int, *, level: float = 0.95) -> Interval:
    """Ratio of a cell to its baseline from turns: ``pairs``: for each pair of processes, the log ratio of each turn.

    Turn t of process pair p is mu + b_p + e_pt: b_p belongs to the two processes (their memory layout, their place in
    the machine's day), e_pt to the turn. A pair counts once, by the median of its turns, whose variance is that of b_p
    and that of the turns' median together: Student's t over the pairs' medians has both (T. Kalibera and R. Jones,
    "Rigorous benchmarking in reasonable time", ISMM 2013, with two levels). ``first`` and the stopping: see
    ``precision.half_width``. The value is the geometric mean. One pair: no interval. ValueError without a pair, or
    with an empty one.
    """
    if not pairs or not all(len(turns) for turns in pairs):
        raise ValueError("every pair of processes needs a turn")
    medians = np.array([np.median(turns) for turns in pairs])
    value, count = math.exp(medians.mean()), len(medians)
    if count == 1:
        return Interval(value, math.nan, math.nan, 1, NOTHING, level)
    half = float(precision.half_width(medians, first, level))
    low, high = value * math.exp(-half), value * math.exp(half)
    return Interval(value, low, high, count, "t over log ratios of process pairs", level)


def paired_delta(
    cell: np.ndarray, baseline: np.ndarray, block: np.ndarray, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean NLL of the cell minus the baseline's, in nats a token, over the same tokens.

    cell, baseline: (n,) NLL per token in one order. block: (n,) window or document of each token. Neighbouring
    tokens err together, so whole blocks are resampled: percentile bootstrap of the ratio of sums from FEW_BLOCKS
    blocks on, below it t with the linearized variance of that ratio (blocks - 1 degrees of freedom); one block:
    no interval. Raises ValueError when the lengths differ.
    """
    cell, baseline, block = (np.asarray(array) for array in (cell, baseline, block))
    if not len(cell) == len(baseline) == len(block) or not len(cell):
        raise ValueError(
            f"{len(cell)} tokens of the cell, {len(baseline)} of the baseline, {len(block)} blocks: not paired"
        )
    difference = cell.astype(np.float64) - baseline.astype(np.float64)
    _, index = np.unique(block, return_inverse=True)
    sums, sizes = np.bincount(index, weights=difference), np.bincount(index)
    count, value = len(sums), float(difference.mean())
    if count == 1:
        return Interval(value, math.nan, math.nan, 1, NOTHING, level)
    if count < FEW_BLOCKS:
        residuals = (sums - value * sizes) / sizes.mean()
        half = t_quantile(level, count - 1) * residuals.std(ddof=1) / math.sqrt(count)
        return Interval(value, value - half, value + half, count, "t over blocks", level)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.quantile((times @ sums) / (times @ sizes), _tails(level))
    return Interval(value, float(low), float(high), count, "block bootstrap", level)


def degradation_percent(delta: Interval) -> Interval:
    """Change of perplexity in percent, (exp(ΔNLL) - 1) x 100, from ``paired_delta``."""

    value, low, high = (100 * math.expm1(nats) for nats in (delta.value, delta.low, delta.high))
    return Interval(value, low, high, delta.n, delta.method, delta.level)


def independent_ratio(above: Interval, below: Interval) -> Interval:
    """above / below of two positive values that were not measured in turns, such as those of two runs.

    The half-widths of the two intervals are combined in quadrature on the log scale, each on the side that moves the
    ratio that way (Zou and Donner, "Construction of confidence limits about effect measures", 2008). What drifted
    between the two measurements is in the ratio; without an interval of both there is none.
    """
    value, (low, high) = above.value / below.value, (math.nan, math.nan)
    ends = (above.low, above.high, below.low, below.high)
    if all(end > 0 for end in ends):
        down = math.hypot(math.log(above.value / above.low), math.log(below.high / below.value))
        up = math.hypot(math.log(above.high / above.value), math.log(below.value / below.low))
        low, high = value * math.exp(-down), value * math.exp(up)
    return Interval(value, low, high, min(above.n, below.n), "independent, combined on the log scale", above.level)


def mean_std(samples: Sequence[float]) -> tuple[float, float]:
    """The study's figure: mean and sample standard deviation (0 for one sample)."""
    array = np.asarray(samples, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


NO_DIFFERENCE = ("tie", "undecided")  # verdicts of a speed that the interval does not tell apart from the baseline's


def speed_verdict(low: float, high: float) -> str:
    """``faster`` or ``slower`` when the interval of the speedup excludes 1; ``tie`` when it lies within TIE of 1.

    ``undecided`` else, and without an interval: it may be any of the three, and a longer run may say which.
    """
    if low > 1 or high < 1:
        return "faster" if low > 1 else "slower"
    return "tie" if low * (1 + TIE) >= 1 and high <= 1 + TIE else "undecided"


def quality_verdict(low: float, high: float) -> str:
    """``worse`` or ``better`` when the interval of ΔNLL excludes 0, else ``no detectable change``."""
    return "worse" if low > 0 else "better" if high < 0 else "no detectable change"


def _positive(replicates: Replicates) -> list[np.ndarray]:
    arrays = [np.atleast_1d(np.asarray(samples, dtype=np.float64)) for samples in replicates]
    if not arrays or any(array.size == 0 or not (array > 0).all() for array in arrays):
        raise ValueError("every replicate needs samples, and these must be positive")
    return arrays


def _tails(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def _t_interval(values: np.ndarray, level: float) -> tuple[float, float, float]:
    """Mean, low and high of Student's t interval."""
    mean = float(values.mean())
    half = t_quantile(level, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _bootstrap(statistic, values: np.ndarray, level: float, seed: int) -> tuple[float, float]:
    """SciPy's percentile bootstrap; NaN for a single value, of which nothing can be said."""
    if len(values) == 1:
        return math.nan, math.nan
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,),
        statistic,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
