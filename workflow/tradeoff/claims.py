"""Put a study's statements on trial: every claim of config/claims.yaml gets a verdict, worked out and never typed in.

    python -m workflow.tradeoff.claims --claims config/claims.yaml --reference config/reference.yaml \\
        --summary results/demo/tables/summary.csv --environment results/demo/environment.json \\
        --output results/demo/tables/claims.csv

Three judges look at each claim: internal consistency (the document's own numbers), physical plausibility (exact sizes)
and replication (our cells; without --summary nothing is compared). A claim does not stand when one of them refutes it;
it stands when it was reproduced, or follows from the document's own numbers; else it is not checked.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workflow.tradeoff import consistency, errors, files, measured, plausibility, replication
from workflow.tradeoff.claimfile import Claim, load, read_yaml, reference
from workflow.tradeoff.consistency import Finding
from workflow.tradeoff.errors import UserError

STANDS, FALLS, NOT_CHECKED = "stands", "does not stand", "not checked"
VERDICTS = (STANDS, FALLS, NOT_CHECKED)
TEMPLATE = Path(__file__).resolve().parents[2] / "report" / "claims.md.j2"
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
        (consistent, consistency.INCONSISTENT),
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
    if root.follows and consistent.status == consistency.CONSISTENT:
        return STANDS, f"follows from the document's own numbers: {consistent.arithmetic}"
    words = [] if plausible.status == plausibility.NOT_CHECKABLE else [f"plausible: {plausible.arithmetic}"]
    return NOT_CHECKED, "; ".join([*words, consistent.arithmetic, f"not comparable: {replicated.arithmetic}"])


def counts(rows: Iterable[Mapping]) -> Counter:
    """How many claims got each verdict and each finding, keys as in the rows; own ones also as ``inconsistent_own``."""
    found: Counter = Counter()
    for row in rows:
        found.update([row["verdict"], row["consistency"], row["plausibility"], row["replication"]])
        found.update(f"{row[key]}_own" for key in ("consistency", "plausibility") if row[f"{key}_own"] == "yes")
    return found


def section(rows: Sequence[Mapping]) -> str:
    """The report's section on the claims, in Markdown, from the rows of claims.csv."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(TEMPLATE.name).render(claims=rows, claim_counts=counts(rows))


def read(path: Path | str) -> list[dict]:
    """The rows of a claims.csv."""
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the claims stage first") from error


def write(path: Path | str, rows: Iterable[Mapping]) -> None:
    with files.atomic_file(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--claims", type=Path, required=True, help="the statements, config/claims.yaml")
    parser.add_argument(
        "--reference", type=Path, required=True, help="sizes, protocols and limits, config/reference.yaml"
    )
    parser.add_argument("--summary", type=Path, help="tables/summary.csv; conventions.csv beside it is read too")
    parser.add_argument("--environment", type=Path, help="environment.json of the same study")
    parser.add_argument("--output", type=Path, required=True, help="claims.csv to write")
    args = parser.parse_args(argv)
    _, claims = load(args.claims)
    known = reference(args.reference, claims)
    cells = measured.read(args.summary, known) if args.summary else None
    rows = judge(claims, known, cells, read_yaml(args.environment) if args.environment else None)
    write(args.output, rows)
    found = counts(rows)
    print(f"{len(rows)} claims: " + ", ".join(f"{found[name]} {name}" for name in VERDICTS))


if __name__ == "__main__":
    errors.run(main)
