"""Serve a scenario's winner and its baseline, drive both at rising rates, and keep the raw facts of every request.

    python -m workflow.tradeoff.serve --results results/demo --decision results/demo/tables/decision.json \\
        --deploy results/demo/deploy/deploy.json --plan '{"rates": [1, 2], ...}' --generator .venv-serve/bin/aiperf \\
        --output results/demo/serve/raw.json

The servers run on this machine alone, and end with this process, also when it is killed.
"""

import json
import sys
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json, write_json
from workflow.tradeoff.serve import generator, greedy, server

LIMITS = ("max_ttft_ms", "max_itl_ms")


def chosen(deployed: list[dict], decision: dict, plan: dict) -> tuple[dict, dict]:
    """The winner's entry in deploy.json, and the scenario as it was asked; UserError where there is none."""
    won = [entry for entry in deployed if entry["scenarios"]]
    if not won:
        raise UserError("serve: nothing that was measured can be deployed: tables/scenarios.csv says why")
    name = plan.get("scenario") or won[0]["scenarios"][0]
    found = [
        entry for entry in won if name in entry["scenarios"] and entry["model"] == plan.get("model", entry["model"])
    ]
    if not found:
        raise UserError(f"config key serve: the scenario {name} has no winner that can be deployed: name another")
    own = found[0]
    asked = next(e for e in decision["scenarios"] if (e["scenario"], e["model"]) == (name, own["model"]))
    return own, asked


def one(name: str, variant: str, address: str, options, model: str, plan: dict) -> dict:
    """A server's greedy answers, then its requests at each rate."""
    told = read_json(options.results / "quality" / model / f"{variant}.json")
    given = [example["prompt"] for example in told["generated"]]
    print(f"{name}: {len(given)} greedy answers", file=sys.stderr, flush=True)
    answers = greedy.compare(address, told["prompting"], told["generated"])
    rates, first = [], 0
    for rate in plan["rates"]:
        print(f"{name}: {plan['requests']} requests at {rate:g}/s", file=sys.stderr, flush=True)
        asked = generator.prompts(given, first, plan["requests"])
        first += plan["requests"]
        tokenizer = options.results / "models" / model
        now = {**plan, "rate": rate}
        facts = generator.drive(options.generator, address, told["prompting"], tokenizer, asked, now)
        rates.append({"rate": rate, "facts": facts})
    return {"name": name, "variant": variant, "greedy": answers, "rates": rates}


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--results", required=True, type=Path, metavar="FOLDER", help="results/{study}")
    parser.add_argument("--decision", required=True, type=Path, metavar="FILE")
    parser.add_argument("--deploy", required=True, type=Path, metavar="FILE", help="deploy.json")
    parser.add_argument("--baseline", required=True, metavar="JSON", help="each model's baseline")
    parser.add_argument("--plan", required=True, metavar="JSON", help="the config's key serve")
    parser.add_argument("--limits", required=True, metavar="JSON", help="the config's scenarios")
    parser.add_argument("--generator", required=True, type=Path, metavar="FILE", help="the program aiperf")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    options.generator = options.generator.absolute()
    plan, deployed = json.loads(options.plan), read_json(options.deploy)
    own, asked = chosen(deployed, read_json(options.decision), plan)
    model, baseline = own["model"], json.loads(options.baseline)[own["model"]]
    scenario = json.loads(options.limits)[asked["scenario"]]
    servers = []
    with server.running(own["command"]) as address:
        servers.append(one(own["variant"], own["variant"], address, options, model, plan))
    other = next((e for e in deployed if (e["model"], e["variant"]) == (model, baseline)), None)
    if plan.get("url"):
        servers.append(one(plan["url"], own["variant"], plan["url"].rstrip("/"), options, model, plan))
    elif other and baseline != own["variant"]:
        with server.running(other["command"]) as address:
            servers.append(one(baseline, baseline, address, options, model, plan))
    made = {
        "schema": 1,
        "model": model,
        "scenario": asked["scenario"],
        "limits": {key: scenario[key] for key in LIMITS if key in scenario},
        "plan": plan,
        "digest": own["digest"],
        "servers": servers,
    }
    write_json(options.output, made)


if __name__ == "__main__":
    errors.run(main)
