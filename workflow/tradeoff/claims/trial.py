"""Judge a study's statements: every claim of config/claims.yaml gets a verdict, worked out and never typed in.

Three judges look at each claim: internal consistency (the document's own numbers), physical plausibility (exact sizes)
and replication (our cells). A claim does not stand when one of them refutes it; it stands when it was reproduced, or
follows from the document's own numbers; else it is not checked.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.claims import consistency, measured, plausibility, replication
from workflow.tradeoff.claims.claimfile import Claim
from workflow.tradeoff.claims.finding import CONSISTENT, INCONSISTENT, Finding
from workflow.tradeoff.words import FALLS, NOT_CHECKED, STANDS

# operations that plausibility, not consistency, decides
PHYSICAL = ("busier", "steady")
COLUMNS = (
    "id", "line", "section", "quote", "model", "variant", "kind", "metric", "value", "unit",
    "consistency", "consistency_arithmetic", "consistency_own",
    "plausibility", "plausibility_arithmetic", "plausibility_own",
    "replication", "replication_detail", "verdict", "reason",
)  # fmt: skip


def judge(
    claims: Mapping[str, Claim], known: dict, cells: measured.Cells | None, environment: dict | None
) -> list[dict]:
    """One row per claim, keys COLUMNS, in the order of the document.

    known: the reference. The ``_own`` columns say whether a finding was made on the claim itself or on a part of it.
    """
    consistent = consistency.judge(claims, known)
    plausible = plausibility.judge(claims, known)
    replicated = replication.judge(claims, known, cells, environment)
    rows = []
    for name, claim in claims.items():
        judged = (consistent[name], plausible[name], replicated[name])
        root = claim
        while root.restates:
            root = claims[root.restates]
        outcome, reason = verdict(root, *judged)
        rows.append(
            {
                "id": name, "line": claim.line, "section": claim.section, "quote": claim.quote, "model": claim.model,
                "variant": claim.variant or "", "kind": claim.kind, "metric": claim.metric,
                "value": " to ".join(claim.printed), "unit": claim.unit,
                "consistency": judged[0].status, "consistency_arithmetic": judged[0].arithmetic,
                "consistency_own": _yes(judged[0]),
                "plausibility": judged[1].status, "plausibility_arithmetic": judged[1].arithmetic,
                "plausibility_own": _yes(judged[1]),
                "replication": judged[2].status, "replication_detail": judged[2].arithmetic,
                "verdict": outcome, "reason": reason,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: row["line"])


def _yes(finding: Finding) -> str:
    return "yes" if finding.own else "no"


def verdict(root: Claim, consistent: Finding, plausible: Finding, replicated: Finding) -> tuple[str, str]:
    """(verdict, reason). root: the claim itself, or the one that it restates: saying a thing twice proves nothing."""
    against = [
        (consistent, INCONSISTENT),
        (plausible, plausibility.IMPLAUSIBLE),
        (replicated, replication.NOT_REPRODUCED),
    ]
    for finding, bad in against:
        if finding.status == bad:
            return FALLS, f"{bad}: {finding.arithmetic}"
    if replicated.status == replication.REPRODUCED:
        return STANDS, f"reproduced: {replicated.arithmetic}"
    if any(operation in root.follows for operation in PHYSICAL) and plausible.status == plausibility.PLAUSIBLE:
        return STANDS, f"plausible: {plausible.arithmetic}"
    if root.follows and consistent.status == CONSISTENT:
        return STANDS, f"follows from the document's own numbers: {consistent.arithmetic}"
    words = [] if plausible.status == plausibility.NOT_CHECKABLE else [f"plausible: {plausible.arithmetic}"]
    return NOT_CHECKED, "; ".join([*words, consistent.arithmetic, f"not comparable: {replicated.arithmetic}"])


def write(path: Path | str, rows: Iterable[Mapping]) -> None:
    with files.atomic_file(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
