"""Our own cells in the terms of a study's statements: a summary's rows as intervals of the metrics that claims name."""

import csv
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff.claims.claimfile import Claim, Interval
from workflow.tradeoff.errors import UserError

MB_PER_GB = 1000
STUDY = "study"


class Unmeasured(Exception):
    """What differs, or what is missing, so that a statement cannot be compared. Never leaves ``replication``."""


@dataclass(frozen=True)
class Cells:
    """Rows of tables/summary.csv by (model of the reference, variant), and the perplexities of other conventions.

    conventions: rows of tables/conventions.csv by (model, variant, convention).
    """

    rows: Mapping[tuple[str, str], Mapping[str, str]]
    conventions: Mapping[tuple[str, str, str], Mapping[str, str]]

    @property
    def device(self) -> str | None:
        """cpu or cuda: what all cells ran on, None when they differ."""
        devices = {row.get("device") for row in self.rows.values()}
        return devices.pop() if len(devices) == 1 else None

    def row(self, model: str, variant: str | None, accuracy: bool = False) -> Mapping[str, str]:
        """A cell that gave a figure; Unmeasured otherwise."""
        if not any(name == model for name, _ in self.rows):
            raise Unmeasured(f"model: {model} was not measured here")
        row = self.rows.get((model, variant))
        if row is None:
            raise Unmeasured(f"variant: {model} was not measured as {variant or 'one variant'}")
        key = "accuracy_status" if accuracy and row.get("accuracy_status") else "status"
        if row[key] != "ok":
            raise Unmeasured(f"{model} {variant} gave no figure here: {row.get('reason') or row[key]}")
        return row


def read(summary: Path | str, reference: dict, machine: str | None = None) -> Cells:
    """The cells of a summary, of one kind of machine if it has several, and of the conventions.csv beside it, if any.

    Models are told by name, hub id or alias, whatever their case and punctuation.
    """
    names = {}
    for model, facts in reference["models"].items():
        for alias in (model, facts["hub"], *facts["aliases"]):
            names[_plain(alias)] = model
    rows = {(names.get(_plain(row["model"]), row["model"]), row["variant"]): row for row in _rows(summary, machine)}
    beside = Path(summary).with_name("conventions.csv")
    others = {
        (names.get(_plain(row["model"]), row["model"]), row["variant"], row["convention"]): row
        for row in (_rows(beside, machine) if beside.exists() else [])
    }
    return Cells(rows, others)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(path: Path | str, machine: str | None) -> list[dict[str, str]]:
    try:
        with open(path, newline="") as file:
            return [row for row in csv.DictReader(file) if machine is None or row["machine"] == machine]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run summarize first, or leave --summary out") from error


def _number(row: Mapping[str, str], name: str) -> float:
    text = row.get(name)
    if not text:
        raise Unmeasured(f"{row['model']} {row['variant']} has no {name} here")
    return float(text)


def _interval(row: Mapping[str, str], name: str, low: str, high: str) -> Interval:
    """Its interval, or the value alone where none was taken."""
    value = _number(row, name)
    return Interval(float(row[low]), float(row[high])) if row.get(low) and row.get(high) else Interval(value, value)


def widened(claim: Claim, tolerance: Mapping[str, float], ratio: bool) -> Interval:
    """The printed number's interval, widened by what a replication may differ by."""
    if claim.unit == "%":
        margin = tolerance["points"]
    elif claim.metric in ("perplexity", "nll"):
        # a share of the perplexity is a difference of the loss
        margin = tolerance["perplexity"] * (claim.value if claim.metric == "perplexity" else 1)
    else:
        margin = abs(claim.value) * tolerance["ratio" if ratio else "absolute"]
    return Interval(claim.interval.low - margin, claim.interval.high + margin)


# --- ratios


def ratio(claim: Claim, model: str, baseline: str, cells: Cells) -> Interval:
    """The claim's ratio between its variant and ``baseline``, both of ``model``, in the claim's unit."""
    variant = claim.variant
    if claim.metric == "memory_ratio":
        reduction = _memory_reduction(model, variant, baseline, cells)
        return Interval(1 / (1 - reduction.low / 100), 1 / (1 - reduction.high / 100))
    if claim.metric == "memory_reduction_pct":
        return _memory_reduction(model, variant, baseline, cells)
    if claim.metric in ("degradation_pct", "accuracy_pct"):
        change = _degradation(model, variant, cells)
        return change if claim.metric == "degradation_pct" else Interval(100 - change.high, 100 - change.low)
    speedup = _speedup(model, variant, baseline, cells)
    return speedup if claim.metric == "speedup" else Interval(100 * (1 - speedup.high), 100 * (1 - speedup.low))


def _speedup(model: str, variant: str, baseline: str, cells: Cells) -> Interval:
    """Directly where the baseline is ours too; else the quotient of two speedups, as wide as they allow."""
    row = cells.row(model, variant)
    own = _interval(row, "speedup", "speedup_low", "speedup_high")
    if row["baseline"] == baseline:
        return own
    base = _other(model, baseline, row, cells)
    other = (
        Interval(1.0, 1.0)
        if base["variant"] == base["baseline"]
        else _interval(base, "speedup", "speedup_low", "speedup_high")
    )
    return Interval(own.low / other.high, own.high / other.low)


def _other(model: str, baseline: str, row: Mapping[str, str], cells: Cells) -> Mapping[str, str]:
    try:
        return cells.row(model, baseline)
    except Unmeasured as reason:
        raise Unmeasured(
            f"baseline: the study divides by {baseline}, this study by {row['baseline']} ({reason})"
        ) from reason


def _memory_reduction(model: str, variant: str, baseline: str, cells: Cells) -> Interval:
    """Of the weights in memory: exact, so an interval of one value."""
    row = cells.row(model, variant)
    new, old = _number(row, "weight_mb"), _number(_other(model, baseline, row, cells), "weight_mb")
    return Interval(100 * (1 - new / old), 100 * (1 - new / old))


def _degradation(model: str, variant: str, cells: Cells) -> Interval:
    """Against our own baseline: FP16 and FP32 differ by far less than any quantization does."""
    row = cells.row(model, variant, accuracy=True)
    studied = cells.conventions.get((model, variant, STUDY))
    source = studied if studied and studied.get("degradation_pct") else row
    return _interval(source, "degradation_pct", "degradation_low_pct", "degradation_high_pct")


# --- absolute figures


def absolute(claim: Claim, model: str, protocol: Mapping, cells: Cells, reference: dict) -> Interval:
    """The claim's figure as our cell has it, by the study's protocol; Unmeasured where there is no such column."""
    if claim.metric in ("perplexity", "nll"):
        return _perplexity(claim, model, protocol, cells)
    row = cells.row(model, claim.variant)
    if claim.metric == "memory_gb":
        return Interval(_number(row, "weight_mb") / MB_PER_GB, _number(row, "peak_mb") / MB_PER_GB)
    if claim.metric == "seconds_sd":
        deviation = _number(row, "study_s_sd")
        return Interval(deviation, deviation)
    if claim.metric == "tokens_per_s" and protocol.get("column"):
        rate = _number(row, protocol["column"])
        seconds = protocol["new_tokens"] / rate
        deviation = float(row.get("study_s_sd") or 0)
        fastest = max(seconds - deviation, seconds / 2)
        return Interval(protocol["new_tokens"] / (seconds + deviation), protocol["new_tokens"] / fastest)
    work = protocol.get("work", "made in a way it does not say")
    raise Unmeasured(f"protocol: the study's figure is {work}, which is not measured here")


def _perplexity(claim: Claim, model: str, protocol: Mapping, cells: Cells) -> Interval:
    """By the study's own convention and weighting, whatever the device: only rounding depends on that."""
    row = cells.row(model, claim.variant, accuracy=True)
    convention = protocol["convention"]
    studied = cells.conventions.get((model, claim.variant, convention))
    if studied is None:
        if row.get("convention") != convention:
            raise Unmeasured(
                f"protocol: perplexity by the convention {convention}, here by {row.get('convention') or 'another'}"
            )
        studied = row
    value = float(studied.get("paper_perplexity") or _number(studied, "perplexity"))
    return Interval(value, value) if claim.metric == "perplexity" else Interval(math.log(value), math.log(value))


def comparable(figure: Claim, model: str, baseline: Callable[[Claim], str], cells: Cells) -> Interval:
    """A figure in a form that compares with another of the same model: speeds as speedups over our own baseline."""
    if figure.metric == "tokens_per_s":
        row = cells.row(model, figure.variant)
        if row["variant"] == row["baseline"]:
            return Interval(1.0, 1.0)
        return _interval(row, "speedup", "speedup_low", "speedup_high")
    return ratio(figure, model, baseline(figure), cells)
