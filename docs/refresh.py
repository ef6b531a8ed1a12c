"""Put the last default run's figures into README.md and docs/demo/, so that no number of it is typed by hand.

python -m docs.refresh results/demo          (make docs)
"""

import re
import shutil
import textwrap
from pathlib import Path

import pandas as pd

from workflow.tradeoff import errors
from workflow.tradeoff.decide import decision as decide
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.report import show

ROOT = Path(__file__).parent.parent


def table(results: Path) -> str:
    """The table that make demo ends with."""
    return f"```\n{show.table(pd.read_csv(results / 'tables' / 'summary.csv'))}\n```"


def facts(results: Path) -> str:
    """Machine and time of the run, and the most memory that export and quantization took."""
    rows, resources = decide.read(results / "tables")
    seconds = sum(pd.read_csv(path, sep="\t")["s"].iloc[0] for path in (results / "benchmarks").rglob("*.tsv"))
    peaks = resources.set_index("rule")[["peak_rss_mb", "peak_over_fp32_weights"]].groupby(level=0).max()
    export, quantize = (
        f"{peaks.loc[rule, 'peak_rss_mb'] / 1e3:.2f} GB ({peaks.loc[rule, 'peak_over_fp32_weights']:.1f} times"
        for rule in ("export", "quantize")
    )
    return textwrap.fill(
        f"That run, on {decide.machine(rows, read_json(results / 'environment.json'))}: {len(rows)} cells, "
        f"{seconds / 60:.1f} minutes of jobs, installation apart. Peaks of resident memory: export {export} the "
        f"float32 weights), quantization {quantize}).",
        width=120,
    )


def put(text: str, name: str, content: str) -> str:
    """``text`` with the block of that name replaced; UserError when it has none."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not block.search(text):
        raise UserError(f"README.md has no <!-- {name} --> block: put it back")
    return block.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("results", type=Path, help="folder of the default study's run")
    results = parser.parse_args(argv).results
    readme = ROOT / "README.md"
    text = put(readme.read_text(), "demo table", table(results))
    readme.write_text(put(text, "demo facts", facts(results)))
    shutil.copy(results / "figures" / "tradeoff.svg", ROOT / "docs" / "demo" / "tradeoff.svg")


if __name__ == "__main__":
    errors.run(main)
