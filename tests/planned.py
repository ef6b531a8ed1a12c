"""Run what a dry run plans without Snakemake: every command in a process forked off one that has the libraries.

    jobs = planned.jobs(study.snakemake("--dry-run", "--nocolor").stdout)
    planned.run(study.folder, jobs)

Importing torch and transformers takes every stage seconds, and a study of thirty cells has a hundred jobs. The commands
are the plan's own, to the letter, but for a limit of time that is open until a model is there. That Snakemake runs such
a plan is what tests/e2e/test_study.py shows.
"""

import gc
import importlib
import json
import os
import re
import resource
import runpy
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIBRARIES = ("bitsandbytes", "transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama")
ENGINES = ("engines.hf", "engines.onnx")
STAGES = (
    "measure.sample",
    "evaluate.cell",
    "evaluate.diagnose",
    "prepare.export",
    "prepare.quantize",
    "prepare.fuse",
    "summarize.build",
    "report.page",
    "report.figures",
)
OPEN = "<TBD>"  # Snakemake's word in a dry run
BANDWIDTH = 1 << 24  # bytes that are read to measure the memory's bandwidth, which no test here looks at


@dataclass
class Job:
    """One job of a plan. words: its command; environment: the variables set before it."""

    rule: str
    inputs: list[str]
    outputs: list[str]
    benchmark: str
    words: list[str]
    environment: dict[str, str]


def jobs(text: str) -> list[Job]:
    """The jobs of a dry run that printed its commands, each after those that make its inputs; ``all`` is left out."""
    found = [_job(block) for block in re.split(r"\n(?:local)?rule ", text)[1:]]
    found = [job for job in found if job.outputs]
    missing = {name for job in found for name in job.outputs}
    ordered: list[Job] = []
    while len(ordered) < len(found):
        ready = [job for job in found if job not in ordered and not missing & set(job.inputs)]
        assert ready, "the plan's jobs wait for one another"
        ordered += ready
        missing -= {name for job in ready for name in job.outputs}
    return ordered


def _job(block: str) -> Job:
    rule, _, rest = block.partition(":\n")
    head, _, command = rest.partition("Shell command:")
    fields = dict(line.strip().split(": ", 1) for line in head.splitlines() if ": " in line)
    inputs, outputs = ([name for name in fields.get(key, "").split(", ") if name] for key in ("input", "output"))
    command = command.replace(OPEN, "0")
    words = shlex.split(command.partition("2> >(")[0].replace("\\\n", " ")) if outputs else []
    environment = {}
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    return Job(rule, inputs, outputs, fields.get("benchmark", ""), words, environment)


def run(folder: Path, plan: list[Job], prefix: Sequence[str] = ()) -> None:
    """Run the jobs one after the other in ``folder``, behind a command ``prefix``; AssertionError if one fails."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.planned"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))},
        input=json.dumps([asdict(job) for job in plan]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def _stage(job: Job) -> None:
    """The job's command, in this process."""
    python, flag, module, *arguments = job.words
    assert (python, flag) == ("python", "-m"), job.words
    os.environ.update(job.environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    from workflow.tradeoff.measure import roofline
    from workflow.tradeoff.run import fork

    for name in (*LIBRARIES, *(f"workflow.tradeoff.{name}" for name in (*ENGINES, *STAGES))):
        importlib.import_module(name)
    roofline.READ["cpu"] = BANDWIDTH
    gc.freeze()  # a collection would write to, and so copy, every page that a fork shares
    for job in (Job(**entry) for entry in json.load(sys.stdin)):
        start = time.monotonic()
        code, _ = fork.run(lambda _, job=job: _stage(job), [], quiet=True)
        if code:
            sys.exit(f"{job.rule} ended with {code}: {shlex.join(job.words)}")
        benchmark = Path(job.benchmark)
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        benchmark.write_text(f"s\tmax_rss\n{time.monotonic() - start:.3f}\t{peak:.1f}\n")


if __name__ == "__main__":
    main()
