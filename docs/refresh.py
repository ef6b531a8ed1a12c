"""Put the last default run's table into README.md and its trade-off figure into docs/demo/: no number is typed by hand.

python -m docs.refresh results/demo          (make docs)
"""

import contextlib
import io
import re
import shutil
from pathlib import Path

from workflow.tradeoff import errors, show
from workflow.tradeoff.errors import UserError

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- demo table -->\n).*?(<!-- /demo table -->)", re.DOTALL)


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("results", type=Path, help="folder of the default study's run")
    results = parser.parse_args(argv).results
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        show.main(["--tables", str(results / "tables")])
    readme = ROOT / "README.md"
    text = readme.read_text()
    if not BLOCK.search(text):
        raise UserError("README.md has no <!-- demo table --> block: put it back")
    readme.write_text(BLOCK.sub(lambda found: f"{found[1]}```\n{printed.getvalue().rstrip()}\n```\n{found[2]}", text))
    shutil.copy(results / "figures" / "tradeoff.svg", ROOT / "docs" / "demo" / "tradeoff.svg")


if __name__ == "__main__":
    errors.run(main)
