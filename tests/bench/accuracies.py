"""A line for each cell of a study's ``conventions.csv``: its perplexity, and the change against the baseline.

    python -m tests.bench.accuracies docs/h100/tables

Paired with the baseline on the same tokens; 95% intervals resample windows of text. KL divergence is the mean over the
tokens of ``divergence.csv``.
"""

import argparse
from pathlib import Path

import pandas as pd

HEAD = "| variant | perplexity | change % [95%] | KL, nats |\n| --- | ---: | ---: | ---: |"


def table(tables: Path) -> str:
    """The lines as markdown, of the study whose tables are in ``tables``."""
    cells = pd.read_csv(tables / "conventions.csv")
    apart = pd.read_csv(tables / "divergence.csv").set_index("variant")["kl_mean"]
    lines = [HEAD]
    for cell in cells.itertuples():
        ends = f"{cell.degradation_low_pct:+.2f}, {cell.degradation_high_pct:+.2f}"
        change = "" if cell.variant == cell.baseline else f"{cell.degradation_pct:+.2f} [{ends}]"
        divergence = f"{apart[cell.variant]:.2g}" if cell.variant in apart and change else ""
        lines.append(f"| `{cell.variant}` | {cell.perplexity:.2f} | {change} | {divergence} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, help="results/{study}/tables")
    print(table(parser.parse_args().tables))


if __name__ == "__main__":
    main()
