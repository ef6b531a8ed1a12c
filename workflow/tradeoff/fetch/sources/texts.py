"""Corpora: rows of text, and the row at which each document starts."""

import html
import re
from collections import Counter
from collections.abc import Callable

from workflow.tradeoff.errors import UserError

# " = Title = ", not " = = Section = = "
TITLE = re.compile(r" = (?!= ).* = \n")
DOCUMENT = re.compile(r'<doc\b[^>]*?\btitle="(?P<title>[^"]*)"[^>]*>|<doc\b[^>]*>')
# what a file of another encoding begins with; UTF-32's mark begins with UTF-16's
ENCODINGS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
    b"PK\x03\x04": "zipped",
}
# a mark stands at the beginning, and where files that had one were joined
SIGNS = {
    "CRLF line ends": (re.compile("\r\n"), "\n"),
    "CR line ends": (re.compile("\r"), "\n"),
    "byte order marks": (re.compile("^\ufeff", re.MULTILINE), ""),
}
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def wikitext_rows(text: str) -> list[str]:
    """The rows of a raw WikiText file, as on the hub: a line of one space is "", others keep their newline."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return ["" if line == " " else line + "\n" for line in lines]


def wikitext_raw(rows: list[str]) -> str:
    """The raw file whose ``wikitext_rows`` are ``rows``."""
    return "".join(row or " \n" for row in rows)


def wikitext_documents(rows: list[str]) -> list[int]:
    """The first row of each document: a title of one level.

    What stands before the first title belongs to the first document, so that every row is in one. Two lines of a
    formula in the test split look like titles too; the page-level data set that lm-evaluation-harness scores cuts
    there as well (62 pages of 60 articles), and published word perplexities stand on its cuts.
    """
    titles = [index for index, row in enumerate(rows) if TITLE.fullmatch(row)]
    return [0, *titles[1:]]


def wikitext(text: str) -> tuple[list[str], list[int]]:
    """Rows and document starts of a raw WikiText file."""
    rows = wikitext_rows(text)
    return rows, wikitext_documents(rows)


def wikiextractor(text: str) -> tuple[list[str], list[int]]:
    """Rows and document starts of WikiExtractor's output: the lines between ``<doc ...>`` and ``</doc>``.

    A row is a line that is not empty, with its newline. Entities are decoded, then what is left of tags is removed.
    The title is the first row; a document of nothing but its title is dropped.
    Raises UserError when the text has no ``<doc>`` line.
    """
    if not DOCUMENT.search(text):
        raise UserError("the corpus has no <doc ...> line, so it is not in format wikiextractor: correct `format`")
    rows, documents = [], []
    current: list[str] = []
    for line in text.split("\n"):  # no other sign ends a line: a form feed may stand within one
        opening = DOCUMENT.fullmatch(line.strip())
        if opening:
            current = [html.unescape(opening["title"]).strip()] if opening["title"] else []
        elif line.strip() == "</doc>":
            if len(current) > 1:
                documents.append(len(rows))
                rows += [row + "\n" for row in current]
            current = []
        else:
            clean = TAG.sub("", html.unescape(line)).strip()
            # WikiExtractor repeats the title as the first line
            if clean and current != [clean]:
                current.append(clean)
    return rows, documents


FORMATS: dict[str, Callable[[str], tuple[list[str], list[int]]]] = {
    "wikitext": wikitext,
    "wikiextractor": wikiextractor,
}


def decode(data: bytes, what: str) -> str:
    """The text in ``data``, which is UTF-8; UserError for another encoding, named where its first bytes tell it."""
    for mark, name in ENCODINGS.items():
        if data.startswith(mark):
            raise UserError(f"{what} is {name} text: save it as UTF-8 and correct `sha256`")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8, or give a text file"
        ) from error
    if (found := text.find("\0")) >= 0:
        raise UserError(
            f"{what} has a NUL character at place {found + 1:,}, so it is no UTF-8 text: save it as such, or give one"
        )
    return text


def plain(text: str, changed: Counter) -> str:
    """``text`` with one kind of line end and without byte order marks; ``changed`` counts what was replaced.

    A model would score each carriage return as a token of its own, and no title ends in one.
    """
    for kind, (pattern, instead) in SIGNS.items():
        text, count = pattern.subn(instead, text)
        if count:
            changed[kind] += count
    return text


def parse(data: bytes, form: str, what: str, changed: Counter) -> tuple[list[str], list[int]]:
    """Rows and document starts of ``data`` in format ``form``; ``changed`` as in ``plain``.

    UserError when the format is unknown or the text not UTF-8 or empty.
    """
    if form not in FORMATS:
        raise UserError(f"format {form!r} of {what} is unknown: use one of {', '.join(FORMATS)}")
    text = plain(decode(data, what), changed)
    if not text.strip():
        raise UserError(f"{what} is empty: give a source with text")
    rows, documents = FORMATS[form](text)
    refuse_empty(rows, what)
    return rows, documents


def refuse_empty(rows: list[str], what: str) -> None:
    """Raise UserError when no row holds text."""
    if not any(row.strip() for row in rows):
        raise UserError(f"{what} has no text in its rows: check the source and its `format`")
