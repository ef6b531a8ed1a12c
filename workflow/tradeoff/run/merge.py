"""Put the raw results of runs that share no disk into one folder, of which the tables of the whole study are made.

    python -m workflow.tradeoff.run.merge results-a/demo results-b/demo --output results/demo
    make merge RUNS="results-a/demo results-b/demo" CONFIG=config/mine.yaml

Speed, quality, and the manifests of what ran are copied; weights are not. Two runs fit together when they measured the
same bytes by the same protocol, and all cells of a model in one environment: a ratio never crosses two machines. In a
study of several kinds of machine that holds within a kind. A cell that both runs have, such as a baseline, must have
the same accuracy, and is taken from the run that is named first.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.tradeoff import errors
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json, sha256
from workflow.tradeoff.run import config

# what stands for bytes: equal wherever two runs have it
SAME = ("models/*/manifest.json", "artifacts/*/*/manifest.json", "corpus/*.json")
CELLS = {"speed": (".json",), "quality": (".json", ".npz", ".logprobs.npz", ".plans.npz", ".diagnosis.json")}
BESIDE = ("environment.json", "preflight.json", "preflight/*.json", "benchmarks/*/*.tsv", "benchmarks/*/*/*.tsv")
# settings of a protocol's record that are facts of its run, not of how it was asked to run
TAKEN = ("pairing", "pairing_reason")
OF_MODEL = ("protocols.study.prompt_tokens",)  # a tokenizer's


@dataclass(frozen=True)
class Cell:
    """One cell's raw file of one kind, in one run."""

    run: Path
    kind: str
    path: Path
    data: dict

    @property
    def machine(self) -> str:
        """The kind of machine in whose folder it lies; "" in a study of one."""
        return "/".join(self.path.relative_to(self.run / self.kind).parts[:-2])

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.kind, self.machine, self.data["model"], self.data["variant"]


def cells(run: Path) -> Iterator[Cell]:
    """The raw files of a run; UserError when it has none."""
    found = 0
    for kind in CELLS:
        folder = run / kind
        for path in sorted([*folder.glob("*/*.json"), *folder.glob("*/*/*.json")]):
            if not path.name.endswith(".diagnosis.json"):
                found += 1
                yield Cell(run, kind, path, read_json(path))
    if not found:
        raise UserError(
            f"{run} has no speed/ and no quality/: name the results folder of a study, as results/demo is one"
        )


def settings(cell: Cell) -> dict:
    """What a cell's file says of how it was taken: its schema, study and protocols."""
    said = {key: cell.data.get(key) for key in ("schema", "study", "device", "corpus")}
    for name, protocol in (cell.data.get("protocols") or {}).items():
        plain = {key: value for key, value in protocol.items() if isinstance(value, int | float | str | bool)}
        said |= {f"protocols.{name}.{key}": value for key, value in plain.items() if key not in TAKEN}
    return {key: value for key, value in said.items() if key not in OF_MODEL}


def check_settings(found: Sequence[Cell]) -> None:
    """Raise UserError for the first two cells that were not taken alike."""
    first: dict[tuple[str, ...], tuple[object, Path]] = {}
    for cell in found:
        for key, value in settings(cell).items():
            if value is None:
                continue
            place = cell.machine if key == "device" else ""
            known, where = first.setdefault((cell.kind, place, key), (value, cell.path))
            if known != value:
                raise UserError(
                    f"{key} is {known!r} in {where} and {value!r} in {cell.path}: take both halves with one config and "
                    "one version of the code"
                )


def check_environments(found: Sequence[Cell]) -> list[str]:
    """The environments' digests; UserError when cells of one model ran in two."""
    by_model: dict[tuple[str, ...], Cell] = {}
    for cell in found:
        digest = (cell.data.get("environment") or {}).get("digest")
        known = by_model.setdefault((cell.kind, cell.machine, cell.data["model"]), cell)
        if digest != (known.data.get("environment") or {}).get("digest"):
            raise UserError(
                f"{known.path} and {cell.path} ran in two environments ({_difference(known, cell)}): a model's cells "
                "are compared with each other, and must come from one kind of machine and one set of libraries"
            )
    return sorted({(cell.data.get("environment") or {}).get("digest") or "none" for cell in found})


def _difference(one: Cell, other: Cell) -> str:
    here, there = one.data.get("environment") or {}, other.data.get("environment") or {}
    names = [name for name in here if name not in ("digest", "git") and here[name] != there.get(name)]
    return ", ".join(f"{name}: {here[name]} and {there.get(name)}" for name in names[:1]) or "no digest"


def check_twice(one: Cell, other: Cell) -> None:
    """Raise UserError unless a cell that two runs have scored the same tokens to the same NLL."""
    if one.kind == "speed":
        return
    if one.data["status"] != other.data["status"]:
        raise UserError(
            f"{one.path} is {one.data['status']}, {other.path} is {other.data['status']}: delete the wrong one"
        )
    paths = [cell.path.with_suffix(".npz") for cell in (one, other)]
    if not all(path.is_file() for path in paths):
        return
    with np.load(paths[0]) as here, np.load(paths[1]) as there:
        equal = here.files == there.files and all(np.array_equal(here[name], there[name]) for name in here.files)
    if not equal:
        raise UserError(f"{paths[0]} and {paths[1]} are of one cell and differ: other bytes or machines; leave one out")


def merge(runs: Sequence[Path], output: Path) -> list[str]:
    """Copy the raw results of ``runs`` into ``output``; what is worth saying of it, a line each."""
    found = [cell for run in runs for cell in cells(run)]
    check_settings(found)
    environments = check_environments(found)
    kept: dict[tuple[str, ...], Cell] = {}
    twice = set()
    for cell in found:
        if (known := kept.setdefault(cell.key, cell)) is not cell:
            check_twice(known, cell)
            twice.add("/".join(filter(None, cell.key[1:])))
    copies: dict[Path, Path] = {}
    for run in runs:
        for path in (path for pattern in (*SAME, *BESIDE) for path in sorted(run.glob(pattern))):
            name = path.relative_to(run)
            known = copies.setdefault(name, path)
            if any(name.match(pattern) for pattern in SAME) and _identity(known) != _identity(path):
                raise UserError(f"{known} and {path} are of different bytes: the runs cannot be put together")
    for cell in kept.values():
        for suffix in CELLS[cell.kind]:
            path = cell.path.with_name(cell.path.name.removesuffix(".json") + suffix)
            if path.is_file():
                copies[path.relative_to(cell.run)] = path
    now = time.time()  # one for all: within a rank no file is younger than another
    for name, path in copies.items():
        _copy(path, output / name, now)
    models, kinds = {cell.data["model"] for cell in found}, {cell.machine for cell in found if cell.machine}
    # an accuracy that several kinds share is no cell of its own
    count = len({key[1:] for key in kept if key[0] == "speed"} or {key[1:] for key in kept})
    on = f" on {len(kinds)} kinds of machine" if kinds else ""
    said = [f"{count} cells of {len(models)} models{on} from {len(runs)} runs, in {output}"]
    if twice:
        said.append(f"in more than one run, and taken from the first: {', '.join(sorted(twice))}")
    if len(environments) > 1 and not kinds:
        said.append(f"{len(environments)} environments: compare speeds within a model, not across models")
    return said


def _identity(path: Path) -> str:
    """The digest of what a manifest lists, or of a text itself."""
    return read_json(path)["digest"] if path.name == "manifest.json" else sha256(path)


def _copy(source: Path, target: Path, now: float) -> None:
    """Copy a file with the age that Snakemake would expect of it: what is made of another file is younger."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    parts = target.parts
    order = ("preflight.json", "models", "corpus", "artifacts", "quality", "speed", "environment.json")
    age = next((rank for rank, name in enumerate(order) if name in parts), len(order))
    if target.name == "manifest.json" and "artifacts" in parts and not target.parent.name.startswith("onnx-fp32"):
        age += 0.2  # quantized from an export
    if target.name.endswith(".diagnosis.json"):
        age += 0.5
    # an hour a rank: the order of the stages, and not that of two clusters' clocks
    os.utime(target, (now - 86400 + 3600 * age,) * 2)


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="results folders of the same study")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", metavar="FILE", help="the study's config: into results/{study}")
    where.add_argument("--output", type=Path, metavar="FOLDER")
    args = parser.parse_args(argv)
    if args.config:
        args.output = Path("results") / config.load(args.config)["study"]
    if any(args.output.resolve() == run.resolve() for run in args.runs):
        raise UserError(
            f"{args.output} is one of the runs, and what is merged goes there: move the run elsewhere first"
        )
    print(*merge(args.runs, args.output), sep="\n")


if __name__ == "__main__":
    errors.guard(main, sys.argv[1:])
