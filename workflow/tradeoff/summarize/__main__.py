"""Turn what was measured and evaluated into tidy tables, one row per cell.

    python -m workflow.tradeoff.summarize --study demo --speed results/demo/speed/*/*.json \\
        --quality results/demo/quality/*/*.json --models results/demo/models/*/manifest.json \\
        --output results/demo/tables

Every statistic is computed here and not where it was measured. Speed and quality of a cell are joined on the digests of
what they loaded (``joins``). A cell that does not pass its gates keeps its row, with status and reason, and claims no
speed.
"""

import json
from pathlib import Path

from workflow.tradeoff import corpus, errors, loaded, variants
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import write_json
from workflow.tradeoff.summarize import gates, machines
from workflow.tradeoff.summarize.build import summarize, write
from workflow.tradeoff.summarize.cells import read
from workflow.tradeoff.summarize.joins import joined


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    variants.add_flag(parser)
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--speed", nargs="*", default=[], metavar="FILE", help="speed/{model}/{variant}.json")
    parser.add_argument("--quality", nargs="*", default=[], metavar="FILE", help="quality/{model}/{variant}.json")
    parser.add_argument("--models", nargs="*", default=[], metavar="FILE", help="models/{model}/manifest.json")
    parser.add_argument(
        "--corpus", type=Path, metavar="FILE", help="corpus/{name}.json, which every cell was scored on"
    )
    parser.add_argument(
        "--machines", type=json.loads, metavar="JSON", help="the config's kinds; their files lie in a folder each"
    )
    parser.add_argument("--benchmarks", nargs="*", default=[], metavar="FILE", help="benchmarks/{rule}/….tsv, if any")
    parser.add_argument("--convention", help="of the summary's accuracy columns; default: where divergence was taken")
    parser.add_argument("--max-kl", type=float, default=gates.KL_MOST, help="nats a token, beyond it a cell diverged")
    parser.add_argument(
        "--max-delta-nll", type=float, default=gates.DELTA_NLL_MOST, help="the same for the change of NLL"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="tables/")
    options = parser.parse_args(argv)
    files = options.speed, options.quality, options.models
    groups = machines.read(*files, options.machines) if options.machines else {"": read(*files)}
    for cell in (cell for own in groups.values() for cell in own):
        for part in (cell.speed, cell.quality):
            if part and part.get("study", options.study) != options.study:
                raise UserError(f"{cell.model}/{cell.variant} is of study {part['study']!r}, not {options.study!r}")
    scored = loaded.check_corpus(options.corpus, corpus.read(options.corpus)) if options.corpus else None
    groups = {name: joined(own, scored) for name, own in groups.items()}
    settings = options.benchmarks, options.convention, options.max_kl, options.max_delta_nll
    if not options.machines:
        write(options.output, *summarize(groups[""], *settings))
        return
    write(options.output, *machines.summarize(groups, options.machines, *settings))
    write_json(options.output / "environments.json", machines.environments(groups))


if __name__ == "__main__":
    errors.run(main)
