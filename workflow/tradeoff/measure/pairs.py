"""Raw turns of a cell and its baseline: pairs of fresh processes that live side by side and take turns, A B B A.

Two processes are loaded and warmed, one after the other, and then make one generation each in turn, so that what the
machine does in a minute hits both alike; after some turns both are made anew, since a process has a speed of its own.
Where two do not fit, or one needs the device for itself, they take their turns apart: all of the one, then all of the
other. Pairs go on until the speedup is as sharp as was asked for, or the time is over. Only raw times leave here.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from workflow.tradeoff import precision, samples
from workflow.tradeoff.errors import CellFailure
from workflow.tradeoff.measure import disturbance, telemetry
from workflow.tradeoff.measure.process import Process, Runner
from workflow.tradeoff.run import shortage

MINIMUM = 3  # pairs of processes, whatever the time: two have an interval of 13 standard errors
RETAKES = 2  # of one sample that others disturbed
PAUSE_S = 0.5  # in which what disturbs may end
CONTEXT_BYTES = 1 << 30  # of CUDA and the libraries, of a process on a GPU
PROOF = ("memory", "proof", "kernels", "bandwidth")


@dataclass(frozen=True)
class Plan:
    """How samples are taken.

    load: prompt_tokens and new_tokens of a turn, and ``sequences`` where it is not the study's standard load.
    warmup: untimed generations of a new process. turns: of each process. pairs: of processes, at least. precision:
    half-width of the speedup's interval, as a share, at which it is enough. budget_s: seconds within which the last
    pair should end, from the end of the first, which imports the libraries; twice as many where others disturbed so
    many pairs that the rest are too few. study_runs: of the study's protocol, in
    each process of the first MINIMUM pairs. lost_share: of a sample's time that others may take of a core; 1 and more:
    any. proof: whether it is asked what ran, and not only what the load holds.
    """

    load: Mapping[str, int]
    warmup: int
    turns: int
    pairs: int
    precision: float
    budget_s: float
    study_runs: int
    lost_share: float
    proof: bool = True

    @property
    def least(self) -> int:
        """Pairs of processes without which there is no figure."""
        return min(self.pairs, MINIMUM)


class Crowded(Exception):
    """Two processes cannot live side by side; the message says why."""


class BaselineFailed(CellFailure):
    """The cell runs, and its baseline does not."""


@dataclass
class Patience:
    """Seconds that a cell may spend on waiting for a quiet moment and on taking samples again."""

    left_s: float
    since: float = field(default_factory=time.monotonic)

    def spend(self, began: float) -> bool:
        """Take the time since ``began`` and a pause off it; whether there is any left."""
        time.sleep(PAUSE_S)
        self.left_s -= time.monotonic() - began
        return self.left_s > 0


def measure(cell: Runner, baseline: Runner | None, plan: Plan, apart: str = "") -> dict:
    """Raw processes of a cell and its baseline (None when the cell is the baseline), memory and proof of the cell.

    apart: why the two must not live side by side, in words; empty where they may. Returns ``processes``, each with its
    ``samples`` and those that were ``rejected``; ``pairing`` (live, apart, or alone) and its reason; and PROOF, which
    is of the first process while it has the machine to itself; only the memory of it without ``plan.proof``. Raises
    CellFailure (BaselineFailed, where the cell itself would run), and UserError for a broken study.
    """
    roles = {"cell": cell} | ({"baseline": baseline} if baseline else {})
    taken: list[dict] = []
    patience = Patience(plan.budget_s / 2)
    number, longest, start = 0, 0.0, time.monotonic()
    while True:
        begun = time.monotonic()
        pair = Pair(roles if number % 2 == 0 else dict(reversed(roles.items())), number, plan, patience)
        try:
            records = pair.apart() if apart or not baseline else pair.live()
        except Crowded as crowded:
            apart = str(crowded)
            continue
        if number == 0:
            proof = {key: records[0].pop(key) for key in PROOF if key in records[0]}
            for runner in roles.values():
                runner.passed()
        taken += records
        number += 1
        if number == 1:
            start = time.monotonic()
        else:
            longest = max(longest, time.monotonic() - begun)
        print(
            f"pair {number}: {' and '.join(runner.variant for runner in roles.values())}", file=sys.stderr, flush=True
        )
        if enough(taken, plan, alone=baseline is None):
            break
        usable = len(samples.pairs(taken, samples.decode_rate, baseline is None))
        # where others left something, a figure is worth as much again; on a machine that they hold nothing comes of it
        budget = plan.budget_s * (2 if 0 < usable < plan.least else 1)
        over = time.monotonic() - start + longest > budget
        if over and (number >= plan.least or not usable):
            break
    pairing = "alone" if baseline is None else "apart" if apart else "live"
    return {"processes": taken, "pairing": pairing, "pairing_reason": apart, **proof}


def enough(taken: list[dict], plan: Plan, alone: bool) -> bool:
    """Whether the speedup (of the baseline: its speed) is as sharp as the plan asks for."""
    known = [np.median(logs) for logs in samples.pairs(taken, samples.decode_rate, alone)]
    return len(known) >= plan.pairs and precision.half_width(np.array(known), plan.pairs) <= np.log1p(plan.precision)


def disturbed(taken: list[dict], plan: Plan, alone: bool) -> str:
    """Why there is no figure, in words: too few pairs of processes had a turn in which nobody disturbed; else empty."""
    usable = len(samples.pairs(taken, samples.decode_rate, alone))
    if usable >= plan.least:
        return ""
    every = [sample for process in taken for kind in ("samples", "rejected") for sample in process[kind]]
    marked = [sample for sample in every if sample["disturbed"]]
    worst = max(marked, key=lambda sample: disturbance.share(sample["lost"]))
    return (
        f"{len(marked)} of {len(every)} samples were disturbed, and {usable} of {plan.least} pairs of processes that "
        f"are needed had a turn that was not ({worst['disturbed']}, at worst)"
    )


class Pair:
    """A process of each role, in the order in which they start."""

    def __init__(self, roles: Mapping[str, Runner], number: int, plan: Plan, patience: Patience):
        self.roles, self.number, self.plan, self.patience = roles, number, plan, patience
        self.study_runs = plan.study_runs if number < MINIMUM else 0

    def live(self) -> list[dict]:
        """Both side by side. Raises Crowded when they cannot be."""
        with ExitStack() as stack:
            first, second = self.roles
            process, record = self.open(first, 0, stack)
            processes, records = {first: process}, {first: record}
            if self.number == 0:
                self.peaks(process, record)
                if reason := crowded(record["memory"], self.roles[second]):
                    raise Crowded(reason)
            try:
                with ExitStack() as beside:
                    processes[second], records[second] = self.open(second, 1, beside)
                    order = [first, second]
                    for turn in range(self.plan.turns):
                        for role in order if turn % 2 == 0 else order[::-1]:
                            self.turn(processes[role], records[role], turn)
                    for run in range(self.study_runs):
                        for role in order if run % 2 == 0 else order[::-1]:
                            self.study(processes[role], records[role], run)
            except CellFailure as failed:
                raise Crowded(f"side by side, {failed}") from failed
            if self.number == 0:
                self.prove(process, record)
        return list(records.values())

    def apart(self) -> list[dict]:
        """One after the other."""
        records = []
        for place, role in enumerate(self.roles):
            with ExitStack() as stack:
                process, record = self.open(role, place, stack)
                first = self.number == 0 and place == 0
                if first:
                    self.peaks(process, record)
                for turn in range(self.plan.turns):
                    self.turn(process, record, turn)
                for run in range(self.study_runs):
                    self.study(process, record, run)
                if first:
                    self.prove(process, record)
            records.append(record)
        return records

    def peaks(self, process: Process, record: dict) -> None:
        """The peaks of memory of a process that has the machine to itself, after one generation."""
        process.ask("turn", load=self.plan.load)
        record["memory"] = process.ask("memory")

    def prove(self, process: Process, record: dict) -> None:
        """What ran, or what the load holds, of a process that has the machine to itself again."""
        proof = process.ask("proof" if self.plan.proof else "held", load=self.plan.load)
        record |= proof | {"memory": proof["memory"] | record["memory"]}

    def open(self, role: str, place: int, stack: ExitStack) -> tuple[Process, dict]:
        """A process of a role, loaded and warm, and the record of it."""
        runner = self.roles[role]
        try:
            # the first process of all is as a deployment's, that of the baseline shares what is imported meanwhile
            first = self.number == place == 0
            process = stack.enter_context(runner.start(self.warm) if first else runner.start())
            # of the first process of all, the generation for the peaks of memory is one of these
            process.ask("warm", load=self.plan.load, times=max(0, self.plan.warmup - first))
        except CellFailure as failed:
            if role == "cell":
                raise
            raise BaselineFailed(failed.status, f"its baseline, {runner.variant}: {failed.reason}") from failed
        record = {"role": role, "replicate": self.number, "order": place, **process.ready}
        return process, {**record, "samples": [], "rejected": [], "study": {"samples": [], "rejected": []}}

    def warm(self) -> None:
        """Import what the processes after the first would each import."""
        for runner in self.roles.values():
            runner.warm()

    def turn(self, process: Process, record: dict, turn: int) -> None:
        """One sample; one that was disturbed is taken again, as long as there is patience."""
        self.keep(record, lambda: {"turn": turn, **process.ask("turn", load=self.plan.load)})

    def study(self, process: Process, record: dict, run: int) -> None:
        """One run of the study's protocol, taken again in the same way; none where the model has no room for it."""
        record = record["study"]

        def call() -> dict | None:
            answer = process.ask("study", runs=1)
            record["prompt_tokens"] = answer["prompt_tokens"]
            return {"turn": run, **answer["samples"][0]} if answer["samples"] else None

        self.keep(record, call)

    def keep(self, record: dict, take: Callable[[], dict | None]) -> None:
        """Put what ``take`` gives to the record's samples, and what was disturbed before it to those rejected."""
        for attempt in range(RETAKES + 1):
            began = time.monotonic()
            sample = take()
            if sample is None:
                return
            sample["disturbed"] = spoiled(sample, self.plan.lost_share)
            if not sample["disturbed"] or attempt == RETAKES or not self.patience.spend(began):
                record["samples"].append(sample)
                return
            record["rejected"].append(sample)


def spoiled(sample: Mapping, lost_share: float) -> str:
    """What disturbed a sample, in words; empty for one that counts."""
    device = sample["telemetry"] or {}
    if device.get("throttled"):
        return f"the GPU was slowed down: {', '.join(device['reasons'])}"
    if device.get("others"):
        return f"{device['others']} other processes worked on the GPU"
    return disturbance.words(sample["lost"]) if disturbance.share(sample["lost"]) > lost_share else ""


def crowded(memory: Mapping, other: Runner) -> str:
    """Why a process of ``other`` does not fit beside one whose peaks are ``memory``, in words; empty where it does.

    It is taken to need twice its files while it loads; on a GPU, its files, a quarter more and the driver's share.
    """
    weights = sum(path.stat().st_size for path in other.artifact.iterdir())
    needs = [(2 * weights + memory["before_load_bytes"], shortage.on_host())]
    if "decode_device_process_bytes" in memory:
        card = shortage.Available(telemetry.free_bytes(), "the GPU's memory")
        needs.append((weights * 5 // 4 + CONTEXT_BYTES, card))
    for needed, available in needs:
        if available.size is not None and needed > available.size:
            return f"{other.variant} needs some {needed:,} bytes, and beside the cell {available}"
    return ""
