"""From the raw facts of a served answer to its tables: every statistic of ``serve`` is computed here.

    python -m workflow.tradeoff.serve.tables --raw results/demo/serve/raw.json --output results/demo/serve

OUTPUT/serving.csv    one row a server and rate: percentiles, goodput, errors
OUTPUT/versus.csv     the winner's times against the other server's, with intervals
OUTPUT/serving.json   the same in words, for the report
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workflow.tradeoff import errors
from workflow.tradeoff.files import atomic_file, read_json, write_json
from workflow.tradeoff.serve import statistics
from workflow.tradeoff.words import number

TIMES = {"ttft_s": "time to the first token", "latency_s": "time to the whole answer"}


def rows(made: Mapping) -> list[dict]:
    """One row a server and rate."""
    return [
        {"server": one["name"], "rate_per_s": entry["rate"], **statistics.figures(entry["facts"], made["limits"])}
        for one in made["servers"]
        for entry in one["rates"]
    ]


def against(made: Mapping) -> list[dict]:
    """The first server's times against the second's at each rate; empty for one server."""
    if len(made["servers"]) < 2:
        return []
    own, other = made["servers"]
    found = []
    for entry, beside in zip(own["rates"], other["rates"], strict=True):
        for key, name in TIMES.items():
            told = statistics.versus(entry["facts"], beside["facts"], key)
            head = {"server": own["name"], "against": other["name"], "rate_per_s": entry["rate"], "time": name}
            found.append({**head, **(told or {"verdict": "too few answers"})})
    return found


def sentences(made: Mapping) -> list[str]:
    """What stands above the tables: where each server saturates, and whether it writes what was measured."""
    said = []
    for one in made["servers"]:
        told = statistics.saturation(one["rates"])
        tried = ", ".join(f"{entry['rate']:g}" for entry in one["rates"])
        most = f"; the most that it answered was {number(told['most_per_s'])} a second" if told["most_per_s"] else ""
        if told["saturates_at"] is None:
            said.append(f"{one['name']} kept up with every rate that was tried ({tried} requests a second){most}.")
        else:
            said.append(f"{one['name']} no longer keeps up at {told['saturates_at']:g} requests a second{most}.")
        same = sum(entry["same"] for entry in one["greedy"])
        line = f"{one['name']}: {same} of {len(one['greedy'])} greedy answers are those that were measured offline"
        differ = [entry for entry in one["greedy"] if not entry["same"]]
        if differ:
            first = differ[0]
            line += f"; to {first['prompt']!r} it " + (
                f"failed ({first['error']})" if first["error"] else "wrote otherwise"
            )
        said.append(line + ".")
    return said


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--raw", required=True, type=Path, metavar="FILE", help="of the stage serve")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    options = parser.parse_args(argv)
    made = read_json(options.raw)
    told = {"serving": rows(made), "versus": against(made)}
    for name, lines in told.items():
        with atomic_file(options.output / f"{name}.csv") as temporary:
            pd.DataFrame(lines).to_csv(temporary, index=False)
    head = {key: made[key] for key in ("model", "scenario", "limits", "plan")}
    write_json(options.output / "serving.json", {**head, "sentences": sentences(made), **told})


if __name__ == "__main__":
    errors.run(main)
