"""Where one variant overtakes another: crossings of their speedup curves over the batch and over the prompt's length.

Two points of a curve differ in one thing alone. Between them the logarithm of the speedup is taken to be a straight
line over the logarithm of the batch or the length. Two variants change places between two loads at which the intervals
tell them apart, once each way; where they do so, the set of places at which the interpolated difference is not told
from 0 is the crossing's interval (E. Fieller, "Some problems in interval estimation", J. R. Stat. Soc. B 1954).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workflow.tradeoff.words import number

AXES = {"sequences": "sequences", "prompt_tokens": "prompt tokens"}  # what a curve is over, and its unit
COLUMNS = (
    "model", "over", "from", "to", "at", "ahead_before", "ahead_after", "crosses_at", "crosses_at_low",
    "crosses_at_high", "words",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """Of a curve: where on the axis, the logarithm of the speedup there, and half its interval's width."""

    x: float
    log: float
    half: float


def table(loads: pd.DataFrame) -> pd.DataFrame:
    """A row per crossing; of a curve without one a row that says so. loads: one row per cell and load."""
    rows = []
    for model, over, at, part in curves(loads):
        every = {variant: points(own, over) for variant, own in part.groupby("variant", sort=False)}
        known = {variant: own for variant, own in every.items() if len(own) > 1}
        span = {"from": part[over].min(), "to": part[over].max()}
        head = {"model": model, "over": over, "at": at, **span}
        found = []
        for one, other in itertools.combinations(known, 2):
            found += [head | _told(one, other, over, hit) for hit in crossings(known[one], known[other])]
        none = f"no two of the {len(known)} variants with a curve change places"
        rows += found or [head | {"words": none if len(known) > 1 else "no two variants have a curve to compare"}]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curves(loads: pd.DataFrame):
    """(model, axis, what stays fixed in words, its rows) of each set of loads that differ in one thing alone."""
    for over, fixed in (("sequences", "prompt_tokens"), ("prompt_tokens", "sequences")):
        for (model, held, new), part in loads.groupby(["model", fixed, "new_tokens"], sort=False):
            if part[over].nunique() > 1:
                unit = AXES[fixed].removesuffix("s" if held == 1 else "")
                yield model, over, f"{held} {unit}, {new} new tokens", part.sort_values(over, kind="stable")


def points(rows: pd.DataFrame, over: str) -> list[Point]:
    """The points of a variant's curve that have a speedup with an interval; the baseline's are 1 without a width."""
    known = rows[rows["speedup"].notna() & rows["speedup_low"].notna()]
    ends = zip(known[over], known["speedup"], known["speedup_low"], known["speedup_high"], strict=True)
    return [Point(float(x), math.log(value), math.log(high / low) / 2) for x, value, low, high in ends]


def crossings(one: Sequence[Point], other: Sequence[Point]) -> list[tuple[float, float, float, bool]]:
    """(place, low, high, whether ``one`` is ahead before it) of each crossing of two curves, at the x of both."""
    theirs = {point.x: point for point in other}
    both = [(point, theirs[point.x]) for point in one if point.x in theirs]
    x = np.log([own.x for own, _ in both])
    d = np.array([own.log - their.log for own, their in both])
    h = np.array([math.hypot(own.half, their.half) for own, their in both])
    sure = [place for place in range(len(x)) if abs(d[place]) > h[place]]
    found = []
    for before, after in itertools.pairwise(sure):
        if d[before] * d[after] > 0:
            continue
        middle = next(place for place in range(before, after) if d[place] * d[place + 1] <= 0)
        share = d[middle] / (d[middle] - d[middle + 1])
        low, high = min(_ends(d, h, before)), max(_ends(d, h, after - 1))
        spots = ((middle, share), (before, low), (after - 1, high))
        place, least, most = (float(np.exp(x[i] + t * (x[i + 1] - x[i]))) for i, t in spots)
        found.append((place, min(least, place), max(most, place), bool(d[before] > 0)))
    return found


def _ends(d: np.ndarray, h: np.ndarray, at: int) -> list[float]:
    """Shares of the way from a point to the next where the difference leaves, or enters, its own interval around 0.

    Its half-width there is that of a weighted mean of two independent figures.
    """
    step, left, right = d[at + 1] - d[at], h[at] ** 2, h[at + 1] ** 2
    roots = np.roots([step**2 - left - right, 2 * (d[at] * step + left), d[at] ** 2 - left])
    # a double root, where neither end has a width, may come out a hair beside the real axis
    return [min(1.0, max(0.0, root.real)) for root in roots if abs(root.imag) < 1e-6 and -1e-9 <= root.real <= 1 + 1e-9]


def _told(one: str, other: str, over: str, hit: tuple[float, float, float, bool]) -> dict:
    place, low, high, first = hit
    before, after = (one, other) if first else (other, one)
    where = f"{number(place)} [{number(low)}, {number(high)}] {AXES[over]}"
    return {
        "ahead_before": before,
        "ahead_after": after,
        **{f"crosses_at{end}": value for end, value in zip(("", "_low", "_high"), hit[:3], strict=True)},
        "words": f"{before} is ahead of {after} up to {where}, and behind it beyond",
    }
