"""Watch a server that runs: its greedy answers and its times over a bounded window, against what the study measured.

    python -m workflow.tradeoff.serve.watch --url http://127.0.0.1:8000 --results results/demo \\
        --generator .venv-serve/bin/aiperf

For cron and CI: exit code 0 when it is as it was measured; 1, with one line that says what, when it degraded; 2, with
one line, when there is nothing to hold it against.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from workflow.tradeoff import errors, tables
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.serve import generator, greedy, statistics
from workflow.tradeoff.words import number

SHOWN = {"ttft_p50_ms": "median time to the first token", "itl_p50_ms": "median time between tokens"}


def expected(results: Path, model: str, variant: str) -> dict[str, float]:
    """What the study says of a median first token and gap, in ms.

    Of its own server at the lowest rate where it was served (``serve/raw.json``), else of one user offline.
    UserError when it measured no such cell.
    """
    raw = results / "serve" / "raw.json"
    if raw.is_file():
        made = read_json(raw)
        for one in made["servers"] if made["model"] == model else ():
            if one["name"] == variant:
                told = statistics.figures(one["rates"][0]["facts"], {})
                return {key: told[key] for key in SHOWN if told[key]}
    summary = tables.read(results / "tables" / "summary.csv", ("model", "variant", "ttft_ms", "itl_p50_ms"))
    found = summary[(summary["model"] == model) & (summary["variant"] == variant)].to_dict("records")
    if not found:
        raise UserError(f"{results} has no cell {model}/{variant}: name another with MODEL= and VARIANT=")
    told = {"ttft_p50_ms": found[0]["ttft_ms"], "itl_p50_ms": found[0]["itl_p50_ms"]}
    return {key: value for key, value in told.items() if pd.notna(value)}


def degraded(told: Mapping, answers: Sequence[Mapping], expectation: Mapping, factor: float, most_errors_pct: float):
    """What is wrong, one line each; empty when the server does what was measured."""
    found = []
    if faults := [entry for entry in answers if entry["error"]]:
        found.append(f"{len(faults)} of {len(answers)} greedy answers failed ({faults[0]['error']})")
    if differ := [entry for entry in answers if not (entry["same"] or entry["error"])]:
        what = f"to {differ[0]['prompt']!r} it wrote {differ[0]['served']!r}, not {differ[0]['measured']!r}"
        found.append(f"{len(differ)} of {len(answers)} greedy answers are not those that were measured: {what}")
    if told["requests"] and 100 * told["errors"] / told["requests"] > most_errors_pct:
        found.append(f"{told['errors']} of {told['requests']} requests failed")
    for key, name in SHOWN.items():
        value, usual = told.get(key), expectation.get(key)
        if value and usual and value > factor * usual:
            found.append(
                f"{name} {number(value)} ms, {number(value / usual)} times the {number(usual)} ms that were measured"
            )
    return found


def measured(options) -> tuple[str, str, dict, dict[str, float]]:
    """(model, variant, its evaluation, its times) of the cell that a server is held against; UserError without one."""
    address = urlsplit(options.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"--url {options.url} is no address of a server: http://127.0.0.1:8000 would be one")
    if not (index := options.results / "deploy" / "deploy.json").is_file():
        raise UserError(f"{index} is not there: name a study that has run to its end, by STUDY= or --results")
    named = [
        entry
        for entry in read_json(index)
        if options.model in (None, entry["model"]) and options.variant in (None, entry["variant"])
    ]
    if not named:
        raise UserError(f"{options.results}/deploy names no such answer: name another with MODEL= and VARIANT=")
    model, variant = named[0]["model"], named[0]["variant"]
    quality = options.results / "quality" / model / f"{variant}.json"
    if not quality.is_file():
        raise UserError(f"{quality} is not there: without it no text is known to compare with")
    return model, variant, read_json(quality), expected(options.results, model, variant)


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--url", required=True, metavar="URL", help="of an endpoint in OpenAI's form, without /v1")
    parser.add_argument("--results", required=True, type=Path, metavar="FOLDER", help="results/{study}")
    parser.add_argument("--generator", required=True, type=Path, metavar="FILE", help="the program aiperf")
    parser.add_argument("--model", help="default: the first that deploy/ names")
    parser.add_argument("--variant", help="what the server runs; default: the first that deploy/ names")
    parser.add_argument("--rate", type=float, default=0.5, help="requests a second (default 0.5)")
    parser.add_argument("--requests", type=int, default=20, help="at most (default 20)")
    parser.add_argument("--seconds", type=int, default=60, help="the window (default 60)")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most (default 32)")
    parser.add_argument("--answers", type=int, default=3, help="greedy answers to compare (default 3)")
    parser.add_argument("--factor", type=float, default=2, help="times the measured time that is too long (default 2)")
    parser.add_argument("--errors-pct", type=float, default=0, help="of requests that may fail (default 0)")
    options = parser.parse_args(argv)
    try:
        model, variant, told, expectation = measured(options)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    url = options.url.rstrip("/").removesuffix("/v1")
    answers = greedy.compare(url, told["prompting"], told["generated"][: options.answers])
    facts = []
    if not all(entry["error"] for entry in answers):
        given = [example["prompt"] for example in told["generated"]]
        plan = {"rate": options.rate, "requests": options.requests, "seconds": options.seconds, "seed": 0}
        asked = generator.prompts(given, 0, options.requests)
        tokenizer = options.results / "models" / model
        plan |= {"new_tokens": options.tokens}
        facts = generator.drive(options.generator.absolute(), url, told["prompting"], tokenizer, asked, plan)
    figures = statistics.figures(facts, {})
    print(f"{url}, held against {model} as {variant}: {figures['requests']} requests, {figures['errors']} failed")
    for name, value in figures.items():
        if value is not None and name not in ("requests", "errors"):
            print(
                f"  {name:<16} {number(value)}"
                + (f"   measured {number(expectation[name])}" if name in expectation else "")
            )
    if wrong := degraded(figures, answers, expectation, options.factor, options.errors_pct):
        sys.exit(f"degraded: {'; '.join(wrong)}")
    print("as it was measured")


if __name__ == "__main__":
    errors.run(main)
