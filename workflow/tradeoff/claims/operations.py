"""Every operation that claims.yaml may name under ``follows``.

Each takes the claim, its parts and the reference, and returns a Finding. All arithmetic is on intervals: each printed
number stands for every value that rounds to it, so that rounding never convicts.
"""

import math
from collections.abc import Callable, Sequence

from workflow.tradeoff.claims.claimfile import Claim, Interval, members
from workflow.tradeoff.claims.finding import CONSISTENT, INCONSISTENT, NOT_CHECKABLE, Finding, number, span

# --- numbers worked out from numbers


def _worked_out(claim: Claim, parts: Sequence[Claim], formula: str, value: float, interval: Interval) -> Finding:
    """Compare what a formula gives with what is printed."""
    printed, allowed = claim.printed[0], claim.interval
    words = f"{formula} = {number(value)} ({span(interval)} with rounding), printed {printed} ({span(allowed)})"
    if not allowed.meets(interval):
        return Finding(INCONSISTENT, words)
    models = list(dict.fromkeys(part.model for part in parts))
    if len(models) > 1:
        return Finding(INCONSISTENT, f"{words}; but the parts belong to different models: {' and '.join(models)}")
    return Finding(CONSISTENT, words)


def _corners(function: Callable[..., float], *intervals: Interval) -> Interval:
    """Range of a function that is monotonic in each argument."""
    points: list[tuple[float, ...]] = [()]
    for interval in intervals:
        points = [(*point, edge) for point in points for edge in (interval.low, interval.high)]
    values = [function(*point) for point in points]
    return Interval(min(values), max(values))


def _formula(function: Callable[..., float], text: str):
    """An operation that works one number out of its parts; a repeated part is one number, not two."""

    def operation(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
        missing = [part for part in parts if part.value is None]
        if missing:
            return Finding(NOT_CHECKABLE, f"the document has no figure for {missing[0].id}")
        value = function(*(part.value for part in parts))
        same = len(parts) > 1 and len({part.id for part in parts}) == 1
        interval = Interval(value, value) if same else _corners(function, *(part.interval for part in parts))
        return _worked_out(claim, parts, text.format(*(part.printed[0] for part in parts)), value, interval)

    return operation


def remainder_pct(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """100 less each part: an accuracy kept, from degradations."""
    results = []
    for part in parts:
        interval = Interval(100 - part.interval.high, 100 - part.interval.low)
        results.append(_worked_out(claim, [part], f"100 - {part.printed[0]}", 100 - part.value, interval))
    bad = [finding for finding in results if finding.status == INCONSISTENT]
    return Finding(INCONSISTENT if bad else CONSISTENT, "; ".join(finding.arithmetic for finding in bad or results))


def range_(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """The least and the greatest of the parts."""
    low, high = min(parts, key=lambda part: part.value), max(parts, key=lambda part: part.value)
    listed = ", ".join(part.printed[0] for part in parts)
    words = f"of {listed} the least is {low.printed[0]} and the greatest {high.printed[0]}, "
    words += f"printed {claim.printed[0]} to {claim.printed[1]}"
    fits = claim.intervals[0].meets(low.interval) and claim.intervals[1].meets(high.interval)
    return Finding(CONSISTENT if fits else INCONSISTENT, words)


def at_most(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """A bound on every part."""
    above = [part for part in parts if part.interval.low > claim.interval.high]
    words = f"{', '.join(part.printed[0] for part in above or parts)} against a bound of {claim.printed[0]}"
    return Finding(INCONSISTENT if above else CONSISTENT, words)


# --- comparisons


def _compare(sign: str, refuted: Callable[[Interval, Interval], bool]):
    def operation(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
        first, others = parts[0], parts[1:]
        # a speed above another model's is no speedup; a statement about the fastest of all cells may compare models
        if claim.metric == "speedup" and first.metric == "tokens_per_s":
            strangers = [
                other
                for other in others
                if not set(members(first.model, reference)) & set(members(other.model, reference))
            ]
            if strangers:
                words = f"{first.printed[0]} is {first.model}'s and {strangers[0].printed[0]} is {strangers[0].model}'s"
                return Finding(INCONSISTENT, f"{words}: a speedup over another model")
        wrong = [other for other in others if refuted(first.interval, other.interval)]
        if wrong:
            words = "; ".join(
                f"{first.printed[0]} {sign} {other.printed[0]} is false (line {other.line})" for other in wrong
            )
            return Finding(INCONSISTENT, words)
        return Finding(CONSISTENT, "; ".join(f"{first.printed[0]} {sign} {other.printed[0]}" for other in others))

    return operation


def agree(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """All the same within rounding."""
    same = max(part.interval.low for part in parts) <= min(part.interval.high for part in parts)
    values = ", ".join(dict.fromkeys(part.printed[0] for part in parts))
    return Finding(CONSISTENT if same else INCONSISTENT, f"the values are {values}")


def vary(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """Not all the same."""
    finding = agree(claim, parts, reference)
    return Finding(INCONSISTENT if finding.status == CONSISTENT else CONSISTENT, finding.arithmetic)


def minimal(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """Each at most what ``minimal`` is taken to mean."""
    limit = reference["words"]["minimal_pct"]
    above = [part for part in parts if part.interval.low > limit]
    words = ", ".join(part.printed[0] for part in above or parts)
    return Finding(INCONSISTENT if above else CONSISTENT, f"{words} % against at most {limit} % for minimal")


def unchanged(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """Each 0 at the precision of a printed 0%."""
    limit = reference["words"]["unchanged_pct"]
    above = [part for part in parts if part.interval.low > limit or part.interval.high < -limit]
    words = "; ".join(f"line {part.line} prints {part.printed[0]}%" for part in above or parts)
    return Finding(INCONSISTENT if above else CONSISTENT, f"{words}, against none (at most {limit} %)")


def significant(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """Each at least what ``significant`` is taken to mean for its metric."""
    limits = reference["words"]["significant"]
    below = [part for part in parts if part.interval.high < limits[part.metric]]
    words = ", ".join(
        f"{part.printed[0]} {part.unit} against at least {limits[part.metric]}" for part in below or parts
    )
    return Finding(INCONSISTENT if below else CONSISTENT, words)


def informative(claim: Claim, parts: Sequence[Sequence[Claim]], reference: dict) -> Finding:
    """parts: scores, and the perplexities of the same cells. One score for very different perplexities says nothing."""
    scores, perplexities = parts
    least, most = min(perplexities, key=lambda part: part.value), max(perplexities, key=lambda part: part.value)
    same = len({part.value for part in scores}) == 1
    ratio = most.interval.low / least.interval.high
    words = f"perplexity {least.printed[0]} and {most.printed[0]} ({number(ratio)} times) get the same score"
    if same and ratio >= reference["words"]["same_score_ratio"]:
        return Finding(INCONSISTENT, f"{words}: the score does not measure quality")
    return Finding(NOT_CHECKABLE, f"the score is {scores[0].printed[0]} throughout")


def measured(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """The document must give a figure for each part. A number without one is made up; a word cannot be checked."""
    missing = [part for part in parts if part.value is None]
    if not missing:
        return Finding(NOT_CHECKABLE, "figures are given")
    words = f"the document prints N/A for the {missing[0].metric.replace('_', ' ')} (line {missing[0].line})"
    return Finding(INCONSISTENT if claim.values else NOT_CHECKABLE, words)


def only_size(claim: Claim, parts: Sequence[Claim], reference: dict) -> Finding:
    """An effect of model size needs cells that differ in size alone."""
    variants = list(dict.fromkeys(part.variant for part in parts))
    words = " against ".join(f"{part.model} {part.variant} {part.printed[0]}" for part in parts)
    if len(variants) > 1:
        return Finding(NOT_CHECKABLE, f"{words}: no pair of cells in the document differs in size alone")
    return _compare(">", lambda first, other: first.high <= other.low)(claim, parts, reference)


def elsewhere(claim: Claim, parts: Sequence, reference: dict) -> Finding:
    """Judged by plausibility, which knows the sizes, or by what the parts are found to be."""
    return Finding(NOT_CHECKABLE, "needs more than the document's own numbers")


OPERATIONS = {
    "ratio": _formula(lambda a, b: a / b, "{} / {}"),
    "reduction_pct": _formula(lambda new, old: 100 * (1 - new / old), "100 × (1 - {} / {})"),
    "increase_pct": _formula(lambda new, old: 100 * (new / old - 1), "100 × ({} / {} - 1)"),
    "difference": _formula(lambda a, b: a - b, "{} - {}"),
    "exp": _formula(math.exp, "exp({})"),
    "remainder_pct": remainder_pct,
    "range": range_,
    "at_most": at_most,
    "greater": _compare(">", lambda first, other: first.high <= other.low),
    "no_less": _compare("≥", lambda first, other: first.high < other.low),
    "less": _compare("<", lambda first, other: first.low >= other.high),
    "agree": agree,
    "vary": vary,
    "minimal": minimal,
    "unchanged": unchanged,
    "significant": significant,
    "informative": informative,
    "measured": measured,
    "only_size": only_size,
    "busier": elsewhere,
    "steady": elsewhere,
    "rests_on": elsewhere,
}
