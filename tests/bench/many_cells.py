"""What tables, decision and report cost as a study grows: CPU seconds of each stage on synthetic raw results.

    python -m tests.bench.many_cells --cells 90 270 990

No model is run: tests/synthetic.py writes the files as the stages would. docs/cluster.md has the figures.
"""

import argparse
import contextlib
import importlib
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests import synthetic

VARIANTS = synthetic.CPU_VARIANTS
PAGES = ("summary", "speed_by_precision", "latency", "proof", "conventions")


def grown(models: int) -> None:
    """Make synthetic studies of so many models possible, the first four as ever."""
    for number in range(len(synthetic.MODELS), models):
        synthetic.MODELS[f"model-{number:03}"] = 1e8 * (1 + number % 7)


def stages(study: synthetic.Study) -> dict[str, list[str]]:
    """Commands of the stages after measuring and evaluation, by module."""
    tables, figures = study.folder / "tables", study.folder / "figures"
    given = ["--environment", str(study.environment)]
    return {
        "summarize": study.flags(tables),
        "decide": ["--tables", str(tables), *given, "--output", str(tables)],
        "claims": [
            *("--claims", "config/claims.yaml", "--reference", "config/reference.yaml"),
            *("--summary", str(tables / "summary.csv"), *given, "--output", str(tables / "claims.csv")),
        ],
        "report.figures": ["tradeoff", "--tables", str(tables), "--output", str(figures / "tradeoff.svg")],
        "report.htmltables": [*PAGES, "--tables", str(tables), "--output", str(tables / "html")],
        "report": [
            *("--tables", str(tables), "--figures", str(figures), *given, "--template", "report/report.md.j2"),
            *("--config", json.dumps({"study": "synthetic"}), "--manifests", *map(str, study.manifests)),
            *("--output", str(study.folder / "report.md")),
        ],
    }


def cost(cells: int, folder: Path) -> dict[str, float]:
    """CPU seconds of each stage for a study of about so many cells."""
    models = round(cells / len(VARIANTS))
    grown(models)
    study = synthetic.write(folder, models=models, variants=VARIANTS)
    found = {}
    for name, argv in stages(study).items():
        package = f"workflow.tradeoff.{name}"
        module = importlib.import_module(package if "." in name else f"{package}.__main__")
        begun = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module.main(argv)
        found[name] = time.process_time() - begun
        print(f"{cells} cells: {name} {found[name]:.1f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[90, 270, 990])
    args = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        cost(len(VARIANTS), Path(folder) / "warm")
        for cells in args.cells:
            costs[cells] = cost(cells, Path(folder) / str(cells))
    print("| stage | " + " | ".join(f"{cells} cells" for cells in costs) + " |")
    print("| --- |" + " ---: |" * len(costs))
    for name in next(iter(costs.values())):
        print(f"| {name} | " + " | ".join(f"{found[name]:.1f} s" for found in costs.values()) + " |")
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
