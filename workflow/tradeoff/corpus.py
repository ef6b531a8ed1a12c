"""The file of a corpus: facts and document starts first, then one row a line, so that a reader takes what it needs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff import files

ROWS = '"rows": [\n'  # the line before the first row, as nothing else writes it; the whole is JSON for all that


@dataclass(frozen=True)
class Rows:
    """The rows in a file, read from the disk as far as they are iterated over, each time anew."""

    path: Path
    start: int  # offset of the first one, in bytes

    def __iter__(self) -> Iterator[str]:
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for line in file:
                if line.startswith(b"]"):
                    return
                if line := line.rstrip(b",\n"):
                    yield json.loads(line)


def write(path: Path, facts: Mapping, rows: Iterable[str]) -> None:
    """Write a corpus: ``facts`` (JSON-able, ``documents`` among them) and ``rows``."""
    head = json.dumps(dict(facts), indent=1, allow_nan=False).removesuffix("\n}")
    with files.atomic_file(path) as temporary, open(temporary, "w") as file:
        file.write(f"{head},\n{ROWS}")
        between = ""
        for row in rows:
            file.write(between + json.dumps(row))
            between = ",\n"
        file.write("\n]\n}\n")


def read(path: Path) -> dict:
    """The facts of a corpus, and ``rows`` to iterate over; of another JSON file with the same keys, a list of them."""
    head, start = [], 0
    with open(path, "rb") as file:
        for line in file:
            start += len(line)
            if line == ROWS.encode():
                facts = json.loads(b"".join(head).rstrip(b",\n") + b"}")
                return facts | {"rows": Rows(Path(path), start)}
            head.append(line)
    return json.loads(b"".join(head))
