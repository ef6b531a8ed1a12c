"""The templates under ``report/``, read alike: a name that a template does not know is an error, never a gap."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def folder(path: Path, filters: Mapping[str, Callable[..., Any]] | None = None) -> jinja2.Environment:
    """The templates in ``path``; a line that holds only a tag leaves none behind."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= filters or {}
    return found
