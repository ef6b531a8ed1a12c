"""The text that the rows of a corpus make up: as it was published, with other ends between them, and by document."""

from collections.abc import Iterable, Iterator, Sequence


def between(rows: Iterable[str], join: str) -> Iterator[str]:
    """Pieces of the text of ``rows`` with ``join`` between them."""
    for index, row in enumerate(rows):
        yield join + row if index else row


def lines_of(rows: Iterable[str]) -> Iterator[str]:
    """The lines of the raw text. WikiText's rows keep their newline, and its row "" is a line of one space."""
    if any(row.endswith("\n") for row in rows):
        return (row.removesuffix("\n") if row else " " for row in rows)
    return iter(rows)


def raw_pieces(rows: Iterable[str]) -> Iterator[str]:
    """Pieces of the text before it was cut into rows; of WikiText's rows, the published file byte for byte."""
    yield from between(lines_of(rows), "\n")
    if any(row.endswith("\n") for row in rows):
        yield "\n"


def pages(rows: Iterable[str], documents: Sequence[int]) -> Iterator[list[str]]:
    """The lines of each document, as lm-eval's data set has them: the last one keeps the text's last newline.

    What stands before the first document is one of its own.
    """
    starts, page, last = iter([*documents, None]), [], ""
    start = next(starts)
    for index, (row, line) in enumerate(zip(rows, lines_of(rows), strict=True)):
        while start is not None and index >= start:
            if any(map(str.strip, page)):
                yield page
            page, start = [], next(starts)
        page.append(line)
        last = row
    if last.endswith("\n"):
        page.append("")
    if any(map(str.strip, page)):
        yield page
