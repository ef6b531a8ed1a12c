"""The verdicts on the study's statements, as the report shows them."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from workflow.tradeoff.errors import UserError


def read(path: Path | str) -> list[dict]:
    """The rows of a claims.csv."""
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the claims stage first") from error


def counts(rows: Iterable[Mapping]) -> Counter:
    """How many claims got each verdict and each finding, keys as in the rows; own ones also as ``inconsistent_own``."""
    found: Counter = Counter()
    for row in rows:
        found.update([row["verdict"], row["consistency"], row["plausibility"], row["replication"]])
        found.update(f"{row[key]}_own" for key in ("consistency", "plausibility") if row[f"{key}_own"] == "yes")
    return found
