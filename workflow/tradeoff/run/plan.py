"""What a study will take before anything of it starts: cells, downloads, disk, memory, hours (make plan CONFIG=…).

    python -m workflow.tradeoff.run.plan config/t4.yaml --card-gb 16

Hours are bounds from the study's budgets and slow rates, or, of jobs that ran before, what their benchmarks say. Exit
code 1 when the disk or the card is too small.
"""

import argparse
import itertools
import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff import errors
from workflow.tradeoff.run import config as study_config
from workflow.tradeoff.run import machines, needs, plan_sizes
from workflow.tradeoff.variants import VARIANTS

ARRAYS = 20  # bytes that an evaluation writes for a scored token


@dataclass(frozen=True)
class Job:
    """One job of the study: its needs, and where its time is from. card: MB of a card, 0 where none is used.

    machine: the kind that a cell's job is of, in a study of several.
    """

    stage: str
    model: str
    name: str
    seconds: float
    memory_mb: int
    card_mb: int
    on_card: bool
    measured: bool
    machine: str = ""

    @property
    def label(self) -> str:
        place = f"{self.machine}/" if self.machine else ""
        return place + (f"{self.model}/{self.name}" if self.name else self.model)


@dataclass(frozen=True)
class Plan:
    """A study's jobs, bytes to download, bytes on disk, and how each model's size is known."""

    jobs: list[Job]
    cells: int
    downloads: int
    disk: int
    known: dict[str, tuple[needs.Size, str]]
    threads: int
    machines: dict[str, dict]


def of_study(config: dict, results: Path) -> Plan:
    """The plan of a checked config, with what runs in ``results`` left behind."""
    kinds = machines.kinds(config)
    here = {"device": study_config.device(config), "threads": config["threads"]}
    threads = config["threads"] or os.cpu_count()
    known = {name: plan_sizes.of_model(name, entry, results) for name, entry in config["models"].items()}
    jobs: list[Job] = []
    downloads = disk = cells = 0

    def job(stage: str, model: str, name: str, variant=None, machine: str = "") -> None:
        size = known[model][0]
        past = _benchmark(results, stage, model, name, machine)
        device, own = (kinds.get(machine, here)[key] for key in ("device", "threads"))
        on_card = device == "cuda" and stage in ("measure", "evaluate")
        seconds = needs.seconds(stage, size, config, device, variant, own or threads) if past is None else past
        card = needs.card_mb(size, variant, config) if on_card and variant else 0
        memory = needs.memory_mb(stage, size, config)
        jobs.append(Job(stage, model, name, seconds, memory, card, on_card, past is not None, machine))

    for model, entry in config["models"].items():
        size, how = known[model]
        if how != "fetched":
            downloads += plan_sizes.download(entry, size)
        # what is downloaded lies in a cache beside the model that is kept
        disk += size.stored + plan_sizes.download(entry, size)
        job("fetch_model", model, "")
        variants = [VARIANTS[name] for name in study_config.cells(config, model)[0]]
        for artifact, variant in _artifacts(variants).items():
            fetched, kept = plan_sizes.of_artifact(variant, size)
            job(_maker(variant), model, artifact, variant)
            downloads += 0 if jobs[-1].measured else fetched
            disk += fetched + kept
        for variant, machine in itertools.product(variants, kinds or [""]):
            cells += 1
            job("measure", model, variant.name, variant, machine)
            if entry["source"] != "random" and kinds.get(machine, {}).get("scored_by", machine) == machine:
                job("evaluate", model, variant.name, variant, machine)
                tokens = (config["evaluate"]["max_tokens"] or needs.CORPUS) * len(config["evaluate"]["conventions"])
                disk += ARRAYS * tokens
    return Plan(jobs, cells, downloads, disk, known, threads, kinds)


def _artifacts(variants) -> dict:
    """Folders that are made for variants, the float32 exports that others are made of among them."""
    found = {}
    for variant in variants:
        if variant.artifact == "model":
            continue
        if variant.family == "onnx" and variant.quantized:
            source = VARIANTS["onnx-fp32-kv" if variant.cache else "onnx-fp32"]
            found.setdefault(source.artifact, source)
        found.setdefault(variant.artifact, variant)
    return found


def _maker(variant) -> str:
    if variant.family == "onnx":
        return "quantize" if variant.quantized else "export"
    return {"checkpoint": "fetch_checkpoint", "gguf": "gguf", "packed": "auto_round"}.get(variant.family, "fuse")


def _benchmark(results: Path, stage: str, model: str, name: str, machine: str) -> float | None:
    """Seconds that this job took when it ran last; None when it did not."""
    folder, file = stage.split("_")[0], f"{model}_{name}" if name else model
    path = results / "benchmarks" / folder / machine / f"{file}.tsv"
    if not path.is_file():
        return None
    head, values, *_ = path.read_text().splitlines()
    return float(dict(zip(head.split("\t"), values.split("\t"), strict=True))["s"])


def lines(plan: Plan, free: int, card_gb: float | None) -> tuple[list[str], list[str]]:
    """The plan in words, and what does not fit."""
    card = [job for job in plan.jobs if job.on_card]
    host = [job for job in plan.jobs if not job.on_card]
    stages = list(dict.fromkeys(job.stage for job in plan.jobs))
    wide = max(map(len, stages)) + 1
    said = [
        f"{'cells:':<{wide}} {plan.cells}, {len(plan.jobs)} jobs before the tables",
        f"{'download:':<{wide}} {plan.downloads / 1e9:.1f} GB",
        f"{'disk:':<{wide}} {plan.disk / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
    ]
    for stage in stages:
        of_stage = [job for job in plan.jobs if job.stage == stage]
        longest = max(of_stage, key=lambda job: job.seconds)
        most = max(job.memory_mb for job in of_stage) / 1e3
        ran = sum(job.measured for job in of_stage)
        said.append(
            f"{stage + ':':<{wide}} {len(of_stage)} jobs, {_hours(of_stage):.1f} h, "
            f"the longest {_hours([longest]):.2f} h ({longest.label}), memory at most {most:.1f} GB"
            + (f"; {ran} of them as they took before" if ran else "")
        )
    total = f"{_hours(card):.1f} h with a card, {_hours(host):.1f} h without" if card else f"{_hours(host):.1f} h"
    said.append(f"{'hours:':<{wide}} {total}, at most, one job at a time with {plan.threads} CPU threads")
    for name, kind in plan.machines.items():
        own = [job for job in plan.jobs if job.machine == name]
        timed = sum(job.stage == "measure" for job in own)
        price = kind.get("price_per_hour")
        said.append(
            f"{'machine:':<{wide}} {name}, {timed} cells, {len(own) - timed} evaluations, {_hours(own):.1f} h"
            + (f", {price * _hours(own):,.2f} at {price:g} an hour" if price else "")
        )
    for name, (size, how) in plan.known.items():
        said.append(f"{'model:':<{wide}} {name}, {size.parameters / 1e6:,.0f} million parameters (known from: {how})")
    broken = []
    if plan.disk > free:
        broken.append(f"the study needs {plan.disk / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free: free some")
    if card_gb is not None:
        large = [job for job in plan.jobs if job.card_mb > card_gb * 1000 and job.stage == "evaluate"]
        broken += [
            f"{job.label} needs {job.card_mb / 1e3:.1f} GB of a card of {card_gb:g} GB: leave it out, "
            "or lower evaluate.batch_tokens"
            for job in large
        ]
    return said, broken


def _hours(jobs: list[Job]) -> float:
    return sum(job.seconds for job in jobs) / 3600


def card_gb() -> float | None:
    """Memory of the card here in GB; None where the driver shows none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no card: each in an exception of its own
        return None
    return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).total / 1e9


def _above_zero(kind):
    """A parser of a finite number above zero, of a type."""

    def number(text: str):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    return number


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("config", help="the study")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where studies are written")
    parser.add_argument(
        "--card-gb",
        type=_above_zero(float),
        help="memory of the card that it will run on; default: that of the one here",
    )
    parser.add_argument(
        "--threads", type=_above_zero(int), help="CPU threads, where the config leaves them to the machine"
    )
    args = parser.parse_args(argv)
    config = study_config.load(args.config)
    config["threads"] = args.threads or config["threads"]
    folder = args.results / config["study"]
    plan = of_study(config, folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    card = args.card_gb or card_gb()
    said, broken = lines(plan, shutil.disk_usage(there).free, card)
    print(f"Plan of {args.config}: nothing was started.", *said, sep="\n")
    if broken:
        sys.exit("\n".join(f"error: {line}" for line in broken))


if __name__ == "__main__":
    errors.guard(main, sys.argv[1:])
