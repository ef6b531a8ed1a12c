"""Two runs side by side for people: on the terminal, and as Markdown."""

import sys

import pandas as pd

from workflow.tradeoff import compare, markdown
from workflow.tradeoff.compare import METRICS, Run

WIDE = 130  # columns of a terminal from which the intervals of a and b stand beside that of the ratio
HEADS = {"model": "model", "variant": "variant", "a": "a", "b": "b", "ratio": "b/a ×", "verdict": "b is"}


class Page:
    """What is shown of two runs. tables: metric: the frame of ``compare``."""

    def __init__(self, one: Run, two: Run):
        self.runs = {"a": one, "b": two}
        self.tables = compare.compare(one, two)
        self.differing = compare.differences(one, two)
        self.warnings = compare.warnings(one, two, self.differing)
        self.alone = compare.alone(one, two)

    def names(self) -> list[str]:
        """Which run is which, with its device in words."""
        return [f"{name}: {run.folder} ({device(run)})" for name, run in self.runs.items()]

    def only(self) -> list[str]:
        return [f"Only in {name}: {', '.join(cells)}." for name, cells in self.alone.items() if cells]


def device(run: Run) -> str:
    """The card, or the CPU and its threads."""
    gpu, machine = (run.environment.get(name) or {} for name in ("gpu", "machine"))
    if gpu.get("name"):
        return str(gpu["name"])
    threads = run.environment.get("threads")
    return f"{machine.get('cpu') or 'CPU'}, {threads} thread{'' if threads == 1 else 's'}"


def terminal(page: Page) -> None:
    """Print it: one rich table a metric, then what differs."""
    from rich.console import Console

    # a file or a pipe has no width of its own
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    narrow = console.width < WIDE
    for line in [*page.names(), "", *(f"Note: {warning}" for warning in page.warnings), ""]:
        console.print(line, highlight=False, markup=False)
    for metric, frame in page.tables.items():
        title, how = METRICS[metric]
        if len(frame):
            shown = frame.drop(columns=["a_low", "a_high", "b_low", "b_high"]) if narrow else frame
            console.print(_rich(shown, HEADS, title, how), "")
    if narrow:
        console.print(f"The intervals of a and b: on a terminal of {WIDE} columns, or with --output.", "")
    if len(page.differing):
        console.print(_rich(page.differing, {name: name for name in page.differing}, "What differs", ""), "")
    else:
        console.print("The two environments are equal, field by field.")
    for line in page.only():
        console.print(line, highlight=False, markup=False)


def _rich(frame: pd.DataFrame, heads: dict[str, str], title: str, caption: str):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title, caption=caption or None, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
    )
    shown = markdown.fold(frame)
    names = [name for name in (*heads, *(f"{head} [95%]" for head in heads)) if name in shown]
    names.sort(key=lambda name: list(heads).index(name.removesuffix(" [95%]")))
    for name in names:
        bare = name.removesuffix(" [95%]")
        number = pd.api.types.is_numeric_dtype(frame[bare])
        # on a narrow terminal words may break, names and numbers may not
        table.add_column(
            Text(heads[bare]), justify="right" if number else "left", no_wrap=bare not in ("verdict", "a", "b"),
            overflow="fold",
        )  # fmt: skip
    for row in shown[names].itertuples(index=False, name=None):
        table.add_row(*(Text(str(value)) for value in row))
    return table


def text(page: Page) -> str:
    """The same as Markdown."""
    parts = ["# Two runs side by side", "\n".join(f"- {line}" for line in page.names())]
    parts += [f"> {warning}" for warning in page.warnings]
    parts.append("Every ratio is b over a. Values are followed by their 95% interval, where there is one.")
    for metric, frame in page.tables.items():
        title, how = METRICS[metric]
        if len(frame):
            parts += [f"## {title}", markdown.table(frame, HEADS), f"*{how[0].upper()}{how[1:]}.*"]
    parts.append("## What differs in the environments")
    parts.append(markdown.table(page.differing) if len(page.differing) else "Nothing, field by field.")
    if page.only():
        parts += ["## Cells of one run alone", "\n".join(f"- {line}" for line in page.only())]
    return "\n\n".join(parts) + "\n"
