"""How far a run is: one line a job that ended, with cells done, running and to come and an expected end.

    progress.attach(logger, progress.numbered(dag_jobs), Path("results/demo/logs/progress.log"), {"measure": 120})

Snakemake's own account of each job, its shell command among it, goes to its log file alone (.snakemake/log/), and
failures to the terminal as before. On a terminal the last line shows what runs; a pipe gets the jobs that ended.
"""

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TextIO

CELL_STAGES = ("measure", "evaluate")
# Snakemake's words for one job, which the line of progress stands in for
TOLD = {"job_info", "job_started", "job_finished", "progress", "shellcmd", "group_info"}
CHATTER = ("Select jobs to execute", "Execute ", "Job ")


@dataclass(frozen=True)
class Job:
    """A job of the run.

    cell: of a cell's measuring or evaluation its model, variant and, of several, kind of machine; else None.
    """

    rule: str
    label: str
    cell: tuple[str, ...] | None = None


def job_of(rule: str, wildcards: Mapping[str, str]) -> Job:
    """The job of a rule, named by its wildcards."""
    names = [name for name in ("model", "variant", "machine") if name in wildcards]
    cell = tuple(wildcards[name] for name in names) if rule in CELL_STAGES and "variant" in wildcards else None
    return Job(rule, " ".join([rule, "/".join(map(str, wildcards.values()))]).strip(), cell)


@dataclass
class Tally:
    """What ended, what runs and what is to come. expected: seconds of a rule's job before one of them ended."""

    jobs: Mapping[int, Job]
    expected: Mapping[str, float]
    begun: float
    running: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    def start(self, number: int, now: float) -> None:
        if number in self.jobs:
            self.running[number] = now

    def end(self, number: int, now: float) -> float:
        """Seconds that a job took, which is now among those that ended."""
        self.ended[number] = now - self.running.pop(number, now)
        return self.ended[number]

    def fail(self, number: int) -> None:
        self.running.pop(number, None)

    def cells(self) -> tuple[int, int, int]:
        """Cells done, running and to come: a cell is done with the last of its jobs."""
        left, now = set(), set()
        for number, job in self.jobs.items():
            if job.cell and number not in self.ended:
                left.add(job.cell)
                if number in self.running:
                    now.add(job.cell)
        total = {job.cell for job in self.jobs.values() if job.cell}
        return len(total) - len(left), len(now), len(left - now)

    def left_s(self, now: float) -> float | None:
        """Seconds until the run ends, by what jobs of the same rule took; None before anything ended."""
        took = defaultdict(list)
        for number, seconds in self.ended.items():
            took[self.jobs[number].rule].append(seconds)
        if not self.ended:
            return None
        usual = fmean(self.ended.values())
        work = 0.0
        for number, job in self.jobs.items():
            if number not in self.ended:
                seconds = fmean(took[job.rule]) if took[job.rule] else self.expected.get(job.rule, usual)
                work += max(seconds - (now - self.running[number] if number in self.running else 0), 0)
        # as many at once as so far
        return work / max(sum(self.ended.values()) / max(now - self.begun, 1e-9), 1)

    def words(self, now: float, clock: Callable[[float], time.struct_time] = time.localtime) -> str:
        done, running, to_come = self.cells()
        left = self.left_s(now)
        said = [f"jobs {len(self.ended)} of {len(self.jobs)}"]
        if done + running + to_come:
            said.append(f"cells {done} done, {running} running, {to_come} to come")
        if left is not None and len(self.ended) < len(self.jobs):
            said.append(f"end about {time.strftime('%a %H:%M', clock(now + left))}")
        return "; ".join(said)


class Handler(logging.Handler):
    """Turns Snakemake's events into lines on ``stream`` and in ``log``."""

    def __init__(self, tally: Tally, stream: TextIO, log: TextIO, clock: Callable[[], float] = time.time):
        super().__init__(logging.INFO)
        self.tally, self.stream, self.log, self.clock = tally, stream, log, clock
        self.live = stream.isatty()

    def emit(self, record: logging.LogRecord) -> None:
        event, now = str(getattr(record, "event", None) or ""), self.clock()
        if event == "job_info":
            self.tally.start(record.jobid, now)
        elif event == "job_finished" and record.job_id in self.tally.jobs:
            took = self.tally.end(record.job_id, now)
            self._line(f"{self.tally.jobs[record.job_id].label}: {duration(took)}", now)
        elif event == "job_error" and record.jobid in self.tally.jobs:
            self.tally.fail(record.jobid)
            self._line(f"{self.tally.jobs[record.jobid].label}: FAILED", now)
        else:
            return
        if self.live and self.tally.running:
            names = [self.tally.jobs[number].label for number in self.tally.running]
            self.stream.write(f"\r\x1b[K… {', '.join(names)}"[:110])
            self.stream.flush()

    def _line(self, text: str, now: float) -> None:
        line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {text} [{self.tally.words(now)}]"
        self.stream.write(f"\r\x1b[K{line}\n" if self.live else f"{line}\n")
        self.stream.flush()
        self.log.write(f"{line}\n")
        self.log.flush()

    def close(self) -> None:
        self.log.close()
        super().close()


def duration(seconds: float) -> str:
    """41 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def untold(record: logging.LogRecord) -> bool:
    """Whether a record of Snakemake says something that no line of progress does."""
    if record.levelno > logging.INFO:
        return True
    event = getattr(record, "event", None)
    return str(event) not in TOLD if event else not str(record.msg).startswith(CHATTER)


def attach(logger: logging.Logger, jobs: Mapping[int, Job], log: Path, expected: Mapping[str, float]) -> None:
    """Show progress in place of Snakemake's account of each job; not where another logger writes, or with --verbose."""
    default = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    if not default or logger.level < logging.INFO:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    default[0].addFilter(untold)
    handler = Handler(Tally(jobs, expected, time.time()), sys.stderr, log.open("a"))
    logger.addHandler(handler)


def numbered(jobs: Iterable) -> dict[int, Job]:
    """Snakemake's jobs by their number."""
    return {job.jobid: job_of(job.rule.name, dict(job.wildcards_dict)) for job in jobs if job.rule.name != "all"}
