"""A table of a study as it is read again: one line for what no stage can have written."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from workflow.tradeoff.errors import UserError, first_line

AGAIN = "delete it and run the study again, which makes its tables anew"


def read(path: Path, needs: Iterable[str] = (), **how) -> pd.DataFrame:
    """The CSV at ``path``; UserError where it is absent, is no table, or lacks one of ``needs``, a column or all rows.

    how: what pandas.read_csv takes.
    """
    try:
        table = pd.read_csv(path, **how)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: run the study first") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no table ({first_line(error)}): {AGAIN}") from error
    needs = list(needs)
    if missing := [name for name in needs if name not in table.columns]:
        raise UserError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: {AGAIN}")
    if needs and table.empty:
        raise UserError(f"{path} has no rows: {AGAIN}")
    return table


def check_numbers(table: pd.DataFrame, names: Iterable[str], path: Path) -> None:
    """UserError where a column of figures holds something that is none."""
    for name in names:
        if not pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any():
            raise UserError(f"{path}: not all of the column {name} are numbers: {AGAIN}")
