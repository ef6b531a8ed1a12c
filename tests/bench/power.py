"""What the protocol of speed can tell apart: A against A, and A against A with a slowdown planted in its engine.

    python -m tests.bench.power run --output /tmp/power.jsonl --trials 60 --neighbours none bursts --plants 0 10
    python -m tests.bench.power idle --output /tmp/power.jsonl
    python -m tests.bench.power show --input /tmp/power.jsonl --cells results/demo/speed --docs docs

Each trial is a whole cell as the default study measures it (config/config.yaml: pairs, turns, precision, budget), but
for the proof. A run adds trials to the file until each setting has ``--trials``: stop it and start it as you like.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import yaml

from tests import tiny
from tests.bench.power_words import facts, figure, reached, table, waiting, widths
from workflow.tradeoff import samples, stats
from workflow.tradeoff.measure import pairs, sample
from workflow.tradeoff.measure.process import Process, Runner
from workflow.tradeoff.run import config as study_config
from workflow.tradeoff.run import environment

VARIANT = "torch-fp32"
BURSTS = Path("docs/power/epyc.jsonl")  # runs of another machine, which the page shows beside
NEIGHBOURS = {  # seconds of work of a process of one thread, and of rest after them
    "none": None,
    "bursts": (2.0, 6.0),
    "steady": (1.0, 0.0),
}
SPIN = """
import os, sys, time
work, rest, parent = map(float, sys.argv[1:])
while os.getppid() == parent:
    end = time.monotonic() + work
    while time.monotonic() < end:
        pass
    time.sleep(rest)
"""


class Slow:
    """An engine whose decode steps take ``PLANT`` percent longer."""

    def __init__(self, engine, percent):
        self.engine, self.percent = engine, percent

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def decode(self, token):
        start = time.perf_counter()
        token = self.engine.decode(token)
        self.engine.synchronize()
        end = start + (time.perf_counter() - start) * (1 + self.percent / 100)
        while time.perf_counter() < end:
            pass
        return token


def serve(argv: list[str], percent: float = 0) -> None:
    """``sample`` without its proof, which has no part in the ratio; its engine slowed down by ``percent``."""
    load = sample.engines.load
    sample.engines.load = lambda *args: Slow(load(*args), percent) if percent else load(*args)
    sample.COMMANDS["proof"] = lambda server, load: {"memory": {}, "proof": {}, "kernels": None, "bandwidth": None}
    sample.main(argv)


def slower(argv: list[str]) -> None:
    serve(argv, float(os.environ["PLANT"]))


@contextmanager
def neighbour(kind: str):
    """A process beside, which works as NEIGHBOURS says."""
    if NEIGHBOURS[kind] is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", SPIN, *map(str, (*NEIGHBOURS[kind], os.getpid()))])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def planned() -> pairs.Plan:
    """The plan of the default study's cells."""
    config = yaml.safe_load(Path("config/config.yaml").read_text())
    schema = yaml.safe_load(study_config.SCHEMA.read_text())["properties"]["measure"]["properties"]
    measure = {name: entry["default"] for name, entry in schema.items()} | config["measure"]
    load = {name: measure.pop(name) for name in ("prompt_tokens", "new_tokens")}
    taken = {field.name for field in fields(pairs.Plan)}
    return pairs.Plan(load=load, **{name: value for name, value in measure.items() if name in taken})


def cpu() -> str:
    """The processor, and how many of its cores the bench may use."""
    cores = len(os.sched_getaffinity(0))
    return f"{environment.collect('cpu', 2)['machine']['cpu']}, {cores} of {os.cpu_count()} cores"


def runner(args, server: str) -> Runner:
    flags = ("--model-folder", str(args.model), "--device", "cpu", "--threads", str(args.threads))
    return Runner(VARIANT, args.model, flags, server=f"tests.bench.power:{server}")


def trial(args, plant: float, kind: str) -> dict:
    """One cell: its speedup, 95% interval, and what it took."""
    os.environ["PLANT"] = str(plant)
    plan, load, start = planned(), os.getloadavg()[0], time.monotonic()
    with neighbour(kind):
        taken = pairs.measure(runner(args, "slower" if plant else "serve"), runner(args, "serve"), plan)["processes"]
    found = {"plant": plant, "neighbour": kind, "model": args.model.name, "threads": args.threads, "load": load}
    found |= {"cpu": cpu(), "budget_s": plan.budget_s}
    found |= {"seconds": time.monotonic() - start, "pairs": len(taken) // 2}
    found["retaken"] = sum(len(process["rejected"]) for process in taken)
    if pairs.disturbed(taken, plan, alone=False):
        return found | {"verdict": "disturbed"}
    ratio = stats.paired_ratio(samples.pairs(taken, samples.decode_rate), plan.pairs)
    ends = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
    return found | ends | {"verdict": stats.speed_verdict(ratio.low, ratio.high)}


def run(args) -> None:
    while True:
        done = [entry for entry in read(args.output) if "verdict" in entry]
        settings = [(plant, kind) for kind in args.neighbours for plant in args.plants]
        counts = {key: sum((entry["plant"], entry["neighbour"]) == key for entry in done) for key in settings}
        plant, kind = min(settings, key=counts.get)
        if counts[plant, kind] >= args.trials:
            return
        append(args.output, trial(args, plant, kind))


def idle(args) -> None:
    """Speed of A with a B that is there, loaded and stopped, over its speed alone: one log ratio a round."""
    load = planned().load
    with Process(runner(args, "serve")) as process:
        process.ask("warm", load=load, times=2)
        for number in range(args.rounds):
            speeds = {}
            for beside in (True, False) if number % 2 else (False, True):
                if beside:
                    with Process(runner(args, "serve")) as other:
                        other.ask("turn", load=load)
                        speeds[beside] = rate(process, load)
                else:
                    speeds[beside] = rate(process, load)
            if all(speeds.values()):
                ratio = math.log(speeds[True] / speeds[False])
                append(args.output, {"idle": ratio, "model": args.model.name, "load": os.getloadavg()[0]})


def rate(process: Process, load: dict, turns: int = 5) -> float | None:
    """Median decode speed of the turns that nobody disturbed; None where there is none.

    One goes before them, untimed: what another one's start has left in the caches is no cost of its waiting.
    """
    process.ask("turn", load=load)
    taken = [process.ask("turn", load=load) for _ in range(turns)]
    clean = [samples.decode_rate(turn) for turn in taken if not pairs.spoiled(turn, planned().lost_share)]
    return float(np.median(clean)) if clean else None


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def append(path: Path, entry: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry), flush=True)


def show(args) -> None:
    entries = read(args.input)
    words = {
        "table": table(entries),
        "reached": reached(entries),
        "facts": facts(entries),
        "idle": waiting(entries),
        "widths": widths(args.cells),
        "bursts": "\n\n".join(told(read(BURSTS)) for told in (table, reached, facts)),
    }
    for name, text in words.items():
        print(f"{name}: {text}")
    if args.docs is None:
        return
    figure(entries, args.docs / "power.svg")
    text = Path(__file__).with_suffix(".md").read_text()
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    (args.docs / "power.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "idle"):
        command = commands.add_parser(name)
        command.add_argument("--output", type=Path, required=True)
        command.add_argument("--model", type=Path, help="a model's folder; without it, 22 million random weights")
        command.add_argument("--threads", type=int, default=2)
    commands.choices["run"].add_argument("--trials", type=int, default=60)
    commands.choices["run"].add_argument("--plants", type=float, nargs="+", default=[0, 10], help="percent")
    commands.choices["run"].add_argument("--neighbours", nargs="+", choices=NEIGHBOURS, default=["none", "bursts"])
    commands.choices["idle"].add_argument("--rounds", type=int, default=20)
    command = commands.add_parser("show")
    command.add_argument("--input", type=Path, required=True)
    command.add_argument("--cells", type=Path, help="results/{study}/speed")
    command.add_argument("--docs", type=Path)
    args = parser.parse_args()
    if args.command == "show":
        return show(args)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(args.threads)))
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            args.model = tiny.build(Path(folder) / "llama-22m", "llama", hidden=512, layers=8)
        {"run": run, "idle": idle}[args.command](args)


if __name__ == "__main__":
    main()
