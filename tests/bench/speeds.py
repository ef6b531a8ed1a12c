"""A line for each raw speed file of a folder: what it runs at, what its baseline does, and the ratio.

    python -m tests.bench.speeds docs/large/raw

Tokens a second are medians over processes; the ratio is paired, with its 95% interval. GB a token: of weights and cache
that a step reads, by the proof; their share of the bandwidth that was measured on the card is MBU.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from workflow.tradeoff import samples
from workflow.tradeoff.summarize import rows_speed

HEAD = ["variant", "tokens/s", "baseline's tokens/s", "times the baseline [95%]", "GB a token", "MBU", "joules a token"]


def baseline_rates(speed: dict) -> list[float]:
    """Tokens a second of each process of the baseline; none in the baseline's own file."""
    processes = rows_speed.replicates(speed, "standard", "baseline")
    return [float(np.median([samples.decode_rate(turn) for turn in run["samples"]])) for run in processes]


def line(path: Path) -> list[str]:
    speed = json.loads(path.read_text())
    columns = rows_speed.speed_columns(speed)
    rate, size = columns["decode_tokens_per_s"], speed["proof"]["bytes_per_token"]
    ends = [columns[f"speedup{end}"] for end in ("", "_low", "_high")]
    return [
        f"`{speed['variant']}`",
        f"{rate:.0f}",
        f"{np.median(baseline_rates(speed) or [rate]):.0f}",
        "{:.2f} [{:.2f}, {:.2f}]".format(*ends),
        f"{size / 1e9:.2f}",
        f"{size * rate / speed['bandwidth']['bytes_per_s']:.0%}",
        f"{columns['joules_per_token']:.2f} at {columns['watts']:.0f} W, idle {columns['idle_watts']:.0f} W"
        if "joules_per_token" in columns
        else "not taken",
    ]


def table(folders: Iterable[Path]) -> str:
    """The lines as markdown, for all files in ``folders``."""
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)]]
    cells = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    lines += [line(path) for path in cells if json.loads(path.read_text())["status"] == "ok"]
    return "\n".join(f"| {' | '.join(words)} |" for words in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="results/{study}/speed/{model}")
    print(table(parser.parse_args().folders))


if __name__ == "__main__":
    main()
