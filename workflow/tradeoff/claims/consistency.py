"""Does a statement follow from the document's own numbers? By the operations that claims.yaml names for it."""

from collections.abc import Mapping

from workflow.tradeoff.claims.claimfile import Claim
from workflow.tradeoff.claims.finding import CONSISTENT, INCONSISTENT, NOT_CHECKABLE, Finding
from workflow.tradeoff.claims.operations import OPERATIONS

# how many of a statement's broken parts are quoted
QUOTED = 2


def judge(claims: Mapping[str, Claim], reference: dict) -> dict[str, Finding]:
    """A Finding for each claim: its own arithmetic first, then what its parts were found to be."""
    found: dict[str, Finding] = {}

    def visit(name: str, above: tuple[str, ...] = ()) -> Finding:
        if name in above:
            raise ValueError(f"claims rest on each other in a circle: {' -> '.join((*above, name))}")
        if name not in found:
            claim = claims[name]
            for part in claim.parts:
                visit(part, (*above, name))
            found[name] = inherit(claim, own(claim, claims, reference), found, INCONSISTENT)
        return found[name]

    for name in claims:
        visit(name)
    return {name: found[name] for name in claims}


def inherit(claim: Claim, finding: Finding, found: Mapping[str, Finding], broken: str) -> Finding:
    """``finding``, or ``broken`` when a part of the claim is. A figure compared with itself inherits nothing."""
    if finding.status == broken or by_definition(claim):
        return finding
    bad = [part for part in claim.foundation if found[part].status == broken]
    if not bad:
        return finding
    # of a chain of restatements only its root says something
    roots = [
        found[part].arithmetic if not found[part].own else f"rests on {part}: {found[part].arithmetic}" for part in bad
    ]
    roots = list(dict.fromkeys(roots))
    words = "; ".join(roots[:QUOTED])
    if len(roots) > QUOTED:
        words += f"; and on {len(roots) - QUOTED} more such"
    return Finding(broken, words, own=False)


def by_definition(claim: Claim) -> bool:
    """Whether the claim compares a figure with itself: a baseline's 1.0× and 0%."""
    return any(len(items) > 1 and len({str(item) for item in items}) == 1 for items in claim.follows.values())


def own(claim: Claim, claims: Mapping[str, Claim], reference: dict) -> Finding:
    """The Finding of the claim's own checks, the worst of them."""
    if claim.restates:
        return restates(claim, claims[claim.restates])
    if claim.basis == "none":
        return Finding(NOT_CHECKABLE, "the document gives no figure to check this against")
    if not claim.follows:
        return Finding(
            NOT_CHECKABLE, "no figure to read" if claim.kind == "absent" else "stated once, and nothing to check it by"
        )
    findings = [
        OPERATIONS[operation](claim, [_part(item, claims) for item in items], reference)
        for operation, items in claim.follows.items()
    ]
    for status in (INCONSISTENT, CONSISTENT):
        chosen = [finding.arithmetic for finding in findings if finding.status == status]
        if chosen:
            return Finding(status, "; ".join(chosen))
    return Finding(NOT_CHECKABLE, "; ".join(finding.arithmetic for finding in findings))


def _part(item, claims):
    return [claims[name] for name in item] if isinstance(item, list) else claims[item]


def restates(claim: Claim, first: Claim) -> Finding:
    """The same quantity stated a second time: same figure, same precision of the weights."""
    where = f"line {first.line}"
    if claim.printed_as and claim.printed_as != first.precision:
        return Finding(
            INCONSISTENT, f"stands here under {claim.printed_as.upper()}; {where} says it is {first.precision.upper()}"
        )
    if not claim.values or not first.values:
        return Finding(CONSISTENT, f"as on {where}")
    same = claim.interval.meets(first.interval)
    words = f"{where} has {first.printed[0]}, this line {claim.printed[0]}"
    return Finding(CONSISTENT if same else INCONSISTENT, f"restates {where}" if same else words)
