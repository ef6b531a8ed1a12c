"""Put two finished runs side by side: two cards, two versions, two days.

    python -m workflow.tradeoff.report.compare results/a results/b --output compared.md

Every ratio is b over a and compares two environments: it is never a speedup of a variant, which is only taken within
one run. The runs did not take turns, so the intervals of speed and latency are combined as independent ones, on the
log scale. Perplexities are compared token by token where both runs scored the same tokens.
"""

import sys
from pathlib import Path

import pandas as pd

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file
from workflow.tradeoff.report import compared, markdown
from workflow.tradeoff.report.compared import METRICS, Run

WIDE = 130  # columns of a terminal from which the intervals of a and b stand beside that of the ratio
HEADS = {"model": "model", "variant": "variant", "a": "a", "b": "b", "ratio": "b/a ×", "verdict": "b is"}


class Page:
    """What is shown of two runs. tables: metric: the frame of ``compared.compare``."""

    def __init__(self, one: Run, two: Run):
        self.runs = {"a": one, "b": two}
        self.tables = compared.compare(one, two)
        self.differing = compared.differences(one, two)
        self.warnings = compared.warnings(one, two, self.differing)
        self.alone = compared.alone(one, two)

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


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("a", type=Path, metavar="results/a", help="folder of a finished run")
    parser.add_argument("b", type=Path, metavar="results/b", help="the run that is held against it")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="also write it as Markdown")
    options = parser.parse_args(argv)
    if options.output and options.output.suffix != ".md":
        raise UserError(f"--output {options.output} does not end in .md: it is written as Markdown")
    if options.a.resolve() == options.b.resolve():
        raise UserError(f"{options.a} is given twice: name two runs")
    one, two = compared.read(options.a), compared.read(options.b)
    if not set(one.cells) & set(two.cells):
        raise UserError(f"{options.a} and {options.b} have no cell in common: compare runs of the same models")
    page = Page(one, two)
    terminal(page)
    if options.output:
        with atomic_file(options.output) as temporary:
            temporary.write_text(text(page))


if __name__ == "__main__":
    errors.run(main)
