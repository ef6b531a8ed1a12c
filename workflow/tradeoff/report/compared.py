"""Put two finished runs side by side: two cards, two versions, two days.

    python -m workflow.tradeoff.report.compared results/a results/b --output compare.md

Every ratio is b over a and compares two environments: it is never a speedup of a variant, which is only taken within
one run. The runs did not take turns, so the intervals of speed and latency are combined as independent ones, on the
log scale. Perplexities are compared token by token where both runs scored the same tokens.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow.tradeoff import columns, stats
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.files import read_json
from workflow.tradeoff.report import places
from workflow.tradeoff.run.environment import flatten
from workflow.tradeoff.stats import Interval

NEEDED = ("tables/summary.csv", "environment.json")
COLUMNS = ("model", "variant", "a", "a_low", "a_high", "b", "b_low", "b_high", "ratio", "ratio_low", "ratio_high")
INDEPENDENT = "independent runs: the intervals are combined on the log scale"
METRICS = {  # name: (title, how its ratio comes about)
    "decode_tokens_per_s": ("Decode speed, tokens/s", INDEPENDENT),
    "ttft_ms": ("Time to first token, ms", INDEPENDENT),
    "memory_mb": ("Weights and cache, MB", "counted, so there is no interval"),
    "peak_mb": ("Peak of the process while decoding, MB", "one reading in each run: no interval"),
    "perplexity": (
        "Perplexity",
        "paired token by token where both runs scored the same tokens, else without an interval",
    ),
}
CODE = "git."
CONFIG = "config."


@dataclass(frozen=True)
class Run:
    """A finished run. cells: the summary's rows by (model, variant), None where there is nothing."""

    folder: Path
    cells: dict[tuple[str, str], dict]
    environment: dict

    def scores(self, key: tuple[str, str], convention: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """NLL (n,) in nats, block and token of a cell's text; None where they were not kept."""
        model, _, machine = key[0].partition(" on ")
        scored = (self.cells[key].get("scored_on") or machine) if machine else ""
        path = self.folder / "quality" / scored / model / f"{key[1]}.npz"
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            if f"{convention}/nll" not in arrays:
                return None
            nll, block, token = (arrays[f"{convention}/{name}"] for name in ("nll", "block", "token"))
        return nll.astype(np.float64), block, token


def read(folder: Path) -> Run:
    """A run's tables and environment; UserError when it is not finished."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the results folder of a finished run, such as results/demo")
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no finished run, it lacks {' and '.join(missing)}: run the study to its end")
    try:
        summary = places.read(folder / NEEDED[0], dtype=columns.DIGESTS)
        environment = read_json(folder / NEEDED[1])
    except ValueError as error:
        raise UserError(f"{folder} cannot be read ({error}): run the study again") from error
    if lacking := {"model", "variant", "status", "environment", *METRICS} - set(summary.columns):
        raise UserError(f"{folder}/{NEEDED[0]} has no {', '.join(sorted(lacking))}: summarize the run again")
    rows = summary.astype(object).where(summary.notna(), None).to_dict("records")
    return Run(folder, {(row["model"], row["variant"]): row for row in rows}, environment)


def compare(one: Run, two: Run) -> dict[str, pd.DataFrame]:
    """A table for every metric: each cell that both runs have, a, b and b over a with intervals, and the verdict."""
    both = [key for key in one.cells if key in two.cells]
    found = {}
    for metric in METRICS:
        rows = [line for key in both if (line := _line(metric, key, one, two))]
        found[metric] = pd.DataFrame(rows, columns=[*COLUMNS, "verdict"])
    return found


def _line(metric: str, key: tuple[str, str], one: Run, two: Run) -> dict | None:
    """A cell's line of a metric's table; None where neither run has the figure."""
    first, second = one.cells[key], two.cells[key]
    line: dict = dict(zip(("model", "variant"), key, strict=True))
    if first[metric] is None and second[metric] is None:
        return None
    a, b = (_interval(row, metric) for row in (first, second))
    ratio, verdict = None, None
    if metric == "perplexity":
        a, b, ratio, verdict = _perplexities(key, one, two)
    elif a and b:
        ratio = stats.independent_ratio(b, a)
        verdict = VERDICTS[metric](ratio)
    for name, interval in (("a", a), ("b", b), ("ratio", ratio)):
        line |= {name: None, f"{name}_low": None, f"{name}_high": None}
        if interval:
            line |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    if verdict is None:
        absent = [f"{name}: {row['status']}" for name, row in (("a", first), ("b", second)) if row[metric] is None]
        verdict = "; ".join(absent) or None
    return {**line, "verdict": verdict and verdict.replace("_", " ")}


def _interval(row: Mapping, metric: str) -> Interval | None:
    if row[metric] is None:
        return None
    low, high = (math.nan if (end := row.get(f"{metric}_{side}")) is None else end for side in ("low", "high"))
    return Interval(row[metric], low, high, int(row.get("replicates") or 0), "of the run")


def _speed(ratio: Interval) -> str:
    return "no interval" if math.isnan(ratio.low) else stats.speed_verdict(ratio.low, ratio.high)


def _latency(ratio: Interval) -> str:
    return "no interval" if math.isnan(ratio.low) else stats.speed_verdict(1 / ratio.high, 1 / ratio.low)


def _memory(ratio: Interval) -> str:
    return "the same" if math.isclose(ratio.value, 1, rel_tol=1e-6) else "smaller" if ratio.value < 1 else "larger"


VERDICTS = {"decode_tokens_per_s": _speed, "ttft_ms": _latency, "memory_mb": _memory, "peak_mb": _memory}


def _perplexities(
    key: tuple[str, str], one: Run, two: Run
) -> tuple[Interval | None, Interval | None, Interval | None, str | None]:
    """Perplexity of both runs, their ratio, and the verdict; no ratio of two texts or two ways to cut one."""
    first, second = one.cells[key], two.cells[key]
    a, b = (_interval(row, "perplexity") for row in (first, second))
    if not (a and b):
        return a, b, None, None
    if first["convention"] != second["convention"]:
        return a, b, None, f"not comparable: {first['convention']} against {second['convention']}"
    scores = [run.scores(key, first["convention"]) for run in (one, two)]
    a, b = (_own(found) or known for found, known in zip(scores, (a, b), strict=True))
    if None in scores:
        if first["eval_tokens"] != second["eval_tokens"] or _corpus(one) != _corpus(two):
            return a, b, None, "not comparable: another text"
        return a, b, Interval(b.value / a.value, math.nan, math.nan, 0, "values alone"), "no interval"
    (nll, block, token), (other, _, other_token) = scores
    if not np.array_equal(token, other_token):
        return a, b, None, "not comparable: other tokens were scored"
    delta = stats.paired_delta(other, nll, block)
    ratio = Interval(*map(math.exp, (delta.value, delta.low, delta.high)), delta.n, delta.method)
    verdict = stats.quality_verdict(delta.low, delta.high) if not math.isnan(delta.low) else "no interval"
    return a, b, ratio, "tie" if verdict == "no detectable change" else verdict


def _own(scores: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> Interval | None:
    """Perplexity with its interval over blocks of text; None without the per-token losses."""
    if scores is None:
        return None
    mean = stats.paired_delta(scores[0], np.zeros_like(scores[0]), scores[1])
    return Interval(*map(math.exp, (mean.value, mean.low, mean.high)), mean.n, mean.method)


def _corpus(run: Run) -> object:
    return (run.environment.get("config") or {}).get("corpus")


def differences(one: Run, two: Run) -> pd.DataFrame:
    """Every field of the two environment.json that differs: machine, libraries, image, commit and config."""
    first, second = (flatten(run.environment) for run in (one, two))
    names = dict.fromkeys([*first, *second])
    rows = [
        {"field": name, "a": _shown(first.get(name)), "b": _shown(second.get(name))}
        for name in names
        if name != "digest" and first.get(name) != second.get(name)
    ]
    return pd.DataFrame(rows, columns=["field", "a", "b"])


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def warnings(one: Run, two: Run, differing: pd.DataFrame) -> list[str]:
    """What a reader must know before the ratios, the most important first."""
    fields = list(differing["field"])
    where = [name for name in fields if not name.startswith((CODE, CONFIG))]
    code = [name for name in fields if name.startswith(CODE)]
    protocol = [name for name in fields if name.startswith(f"{CONFIG}measure.")]
    models = [name for name in fields if name.startswith(f"{CONFIG}models.") and not name.endswith(".variants")]
    found = []
    if where:
        found.append(
            f"The environments differ ({_few(where)}): every ratio compares these two environments and is no speedup "
            "of a variant."
        )
    elif code:
        found.append(f"One environment, two versions of the code ({_few(code)}): a ratio compares the versions.")
    else:
        found.append("One environment and one version of the code: what differs is the config, the day, or noise.")
    if protocol:
        found.append(f"The protocols differ ({_few(protocol)}): ratios of speed and latency mix that in.")
    if models:
        found.append(f"A model is not given alike ({_few(models)}): the same name may be another checkpoint.")
    for name, run in (("a", one), ("b", two)):
        digest = str(run.environment.get("digest", ""))
        others = [
            key for key, row in run.cells.items() if row["environment"] and not digest.startswith(row["environment"])
        ]
        if others:
            cells = _few([f"{model}/{variant}" for model, variant in others])
            found.append(f"In {name} some cells ran in another environment than its environment.json names: {cells}.")
    return found


def _few(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def alone(one: Run, two: Run) -> dict[str, list[str]]:
    """Cells that only one run has: {"a": [...], "b": [...]}."""
    return {
        name: [f"{model}/{variant}" for model, variant in run.cells if (model, variant) not in other.cells]
        for name, run, other in (("a", one, two), ("b", two, one))
    }
