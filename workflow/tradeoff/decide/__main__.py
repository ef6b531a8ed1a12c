"""Say which variant to deploy, from the tables and their uncertainty.

In the workflow, for every scenario of the config:

    python -m workflow.tradeoff.decide --tables results/demo/tables --environment results/demo/environment.json \\
        --scenarios '{"balanced": {"objective": "balanced", "max_degradation_pct": 5}}' --output results/demo/tables

For people, one question, answered in the terminal:

    python -m workflow.tradeoff.decide --tables results/demo/tables --max-memory-gb 0.3 --max-degradation-pct 5
"""

import json
import math
from pathlib import Path

from workflow.tradeoff import errors, variants
from workflow.tradeoff.decide import machines, under_load
from workflow.tradeoff.decide.asked import Scenario, parse
from workflow.tradeoff.decide.decision import BOUNDS, DEFAULT_SCENARIOS, decide, limit, read, show, write
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.words import OBJECTIVES


def _json(text: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"--scenarios is not JSON ({error}): give an object of scenarios by name") from error


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER", help="what summarize wrote")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where decision.json and its tables go")
    parser.add_argument("--scenarios", metavar="JSON", help="scenarios by name; default: the study's four")
    parser.add_argument("--quality-bounds", type=float, nargs="+", default=BOUNDS, metavar="PCT")
    parser.add_argument("--environment", type=Path, metavar="FILE", help="environment.json, for the machine's name")
    parser.add_argument("--price-per-kwh", type=limit, default=math.nan, help="of electricity, in any one currency")
    question = parser.add_argument_group("one question, answered in the terminal")
    question.add_argument("--objective", choices=list(OBJECTIVES), default="speed")
    question.add_argument("--max-memory-gb", type=limit)
    question.add_argument("--min-tokens-per-s", type=limit)
    question.add_argument("--max-degradation-pct", type=limit)
    question.add_argument("--max-ttft-ms", type=limit)
    question.add_argument("--max-itl-ms", type=limit)
    question.add_argument("--load", metavar="NAME", help="of loads.csv; default: the standard one")
    question.add_argument("--memory", choices=("weights", "peak"), default="weights", help="which memory is limited")
    options = parser.parse_args(argv)
    (rows, resources), loads = read(options.tables), under_load.read(options.tables)
    if options.output is None:
        if options.scenarios:
            raise UserError("--scenarios is for --output: give that too, or ask one question by its own flags")
        names = ("max_memory_gb", "min_tokens_per_s", "max_degradation_pct", "max_ttft_ms", "max_itl_ms", "load")
        limits = {name: getattr(options, name) for name in names}
        asked = Scenario("asked", options.objective, memory=options.memory, **limits)
        for kind in dict.fromkeys(row.get("machine") for row in rows):
            if kind:
                print(f"On {kind}:")
            own, at = ([row for row in part if row.get("machine") == kind] for part in (rows, loads))
            show(own, asked, at)
        return
    asked = parse(_json(options.scenarios) if options.scenarios else DEFAULT_SCENARIOS)
    environment = read_json(options.environment) if options.environment else {}
    kinds, environments = machines.read(options.tables)
    price = options.price_per_kwh
    if kinds:
        found, parts = machines.decide(
            rows, resources, asked, options.quality_bounds, kinds, environments, loads, price
        )
        machines.write(options.output, parts, rows, environments)
    else:
        found = decide(rows, resources, asked, options.quality_bounds, environment, loads, price)
    write(options.output, found)


if __name__ == "__main__":
    errors.run(main)
