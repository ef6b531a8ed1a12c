"""Put a study's statements on trial: every claim of config/claims.yaml gets a verdict, worked out and never typed in.

    python -m workflow.tradeoff.claims --claims config/claims.yaml --reference config/reference.yaml \\
        --summary results/demo/tables/summary.csv --environment results/demo/environment.json \\
        --output results/demo/tables/claims.csv

Three judges look at each claim: internal consistency (the document's own numbers), physical plausibility (exact sizes)
and replication (our cells; without --summary nothing is compared). A claim does not stand when one of them refutes it;
it stands when it was reproduced, or follows from the document's own numbers; else it is not checked.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.claims import measured, replication
from workflow.tradeoff.claims.claimfile import load, read_yaml, reference
from workflow.tradeoff.claims.trial import judge, write
from workflow.tradeoff.words import VERDICTS


def main(argv: Sequence[str] | None = None) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--claims", type=Path, required=True, help="the statements, config/claims.yaml")
    parser.add_argument(
        "--reference", type=Path, required=True, help="sizes, protocols and limits, config/reference.yaml"
    )
    parser.add_argument("--summary", type=Path, help="tables/summary.csv; conventions.csv beside it is read too")
    parser.add_argument("--environment", type=Path, help="environment.json of the same study")
    parser.add_argument(
        "--environments",
        type=Path,
        help="tables/environments.json of a study of several kinds of machine: judged is "
        "the first with the study's card, else the first",
    )
    parser.add_argument("--output", type=Path, required=True, help="claims.csv to write")
    args = parser.parse_args(argv)
    _, claims = load(args.claims)
    known = reference(args.reference, claims)
    environment = read_yaml(args.environment) if args.environment else None
    kind = None
    if args.environments:
        kinds = read_yaml(args.environments)
        kind = next((name for name, there in kinds.items() if replication.card_of(there, known)), next(iter(kinds)))
        environment = kinds[kind]
        print(f"judged by the cells of {kind}")
    cells = measured.read(args.summary, known, kind) if args.summary else None
    rows = judge(claims, known, cells, environment)
    write(args.output, rows)
    found = Counter(row["verdict"] for row in rows)
    print(f"{len(rows)} claims: " + ", ".join(f"{found[name]} {name}" for name in VERDICTS))


if __name__ == "__main__":
    errors.run(main)
