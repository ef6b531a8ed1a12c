"""Write report.md from the tables, the figures and the decision, by a Jinja2 template. No number is typed by hand.

    python -m workflow.tradeoff.report --tables results/demo/tables --figures results/demo/figures \\
        --environment results/demo/environment.json --template report/report.md.j2 --config '{...}' \\
        --manifests results/demo/models/*/manifest.json --commands 'snakemake --cores 1' --output results/demo/report.md
"""

import json
from pathlib import Path

from workflow.tradeoff import errors, variants
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import atomic_file
from workflow.tradeoff.report.page import context, render


def _json(text: str) -> dict:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"--config is not JSON ({error}): give the study's config as one JSON object") from error


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--tables", required=True, type=Path, metavar="FOLDER", help="of summarize, decide and claims")
    parser.add_argument("--figures", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--decision", type=Path, metavar="FILE", help="default: decision.json among the tables")
    parser.add_argument("--deploy", nargs="+", type=Path, metavar="FILE", help="deploy.json of decide.deploy")
    parser.add_argument("--serving", type=Path, metavar="FILE", help="serving.json, where answers were served")
    parser.add_argument("--environment", required=True, type=Path, metavar="FILE")
    parser.add_argument("--template", required=True, type=Path, metavar="FILE", help="report/report.md.j2")
    parser.add_argument("--landing", nargs=2, type=Path, metavar=("TEMPLATE", "FILE"), help="the HTML's first page")
    parser.add_argument("--paper", nargs=2, type=Path, metavar=("TEMPLATE", "FILE"), help="the page on the paper")
    parser.add_argument("--config", required=True, metavar="JSON", help="the study's config")
    parser.add_argument("--manifests", nargs="*", default=[], metavar="FILE", help="of models and ONNX artifacts")
    parser.add_argument("--diagnoses", nargs="*", default=[], metavar="FILE", help="what diagnose wrote of each cell")
    parser.add_argument("--commands", nargs="*", default=[], metavar="COMMAND", help="that make this study again")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    options.config = _json(options.config)
    variants.define(options.config.get("define") or {})
    values = context(options)
    beside = [pair for pair in (options.landing, options.paper) if pair]
    for template, output in [(options.template, options.output), *beside]:
        text = render(template, values)
        with atomic_file(output) as temporary:
            temporary.write_text(text)


if __name__ == "__main__":
    errors.run(main)
