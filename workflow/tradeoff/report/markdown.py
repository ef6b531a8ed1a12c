"""Tables and numbers for people: Markdown out of data frames, with intervals folded into one cell."""

from collections.abc import Mapping, Sequence

import pandas as pd

from workflow.tradeoff.words import EMPTY, number

# words of column names as people write them; a unit stays at the end, before the interval's bracket
WORDS = {
    "mb": "MB", "gb": "GB", "pct": "%", "us": "µs", "ttft": "TTFT", "itl": "ITL", "nll": "NLL", "kl": "KL",
    "onnx": "ONNX", "dp": "Δp", "sem": "standard error", "rss": "RSS", "bos": "BOS", "fp32": "FP32", "mbu": "MBU",
}  # fmt: skip
HEADS = {
    "nll": "NLL nats", "avg_loss": "avg loss nats", "paper_loss": "paper loss nats", "delta_nll": "ΔNLL nats",
    "kl_mean": "KL mean nats", "tokens_per_s": "tokens/s", "s_mean": "mean s", "s_median": "median s",
    "s_sd": "standard deviation s",
    "same_top": "same top token, share", "speedup": "speedup ×", "speed_efficiency": "speed ×",
    "memory_efficiency": "memory ×", "best_speedup": "best speedup ×", "over_onnx_fp32": "over ONNX FP32 ×",
    "load_peak_mb": "peak while loading MB",
}  # fmt: skip


def text(value) -> str:
    """Any value in a Markdown cell."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ") or EMPTY
    return number(value)


def fold(table: pd.DataFrame) -> pd.DataFrame:
    """x, x_low and x_high as one column ``x [95%]``: ``2.9 [2.8, 3]``; likewise x_pct, x_low_pct, x_high_pct."""
    result: dict[str, list[str]] = {}
    used: set[str] = set()
    for name in table.columns:
        if name in used:
            continue
        ends = _ends(name, set(table.columns))
        if ends is None:
            result[name] = [text(value) for value in table[name]]
            continue
        used |= set(ends)
        result[f"{name} [95%]"] = [
            f"{number(value)} [{number(low)}, {number(high)}]"
            if not pd.isna(value) and not pd.isna(low)
            else number(value)
            for value, low, high in table[[name, *ends]].itertuples(index=False, name=None)
        ]
    return pd.DataFrame(result)


def head(name: str) -> str:
    """A column's name for people: ``itl_p50_ms`` is ``ITL p50 ms``, ``drift_pct`` is ``drift %``."""
    if name in HEADS:
        return HEADS[name]
    words = " ".join(WORDS.get(word, word) for word in name.replace("tokens_per_s", "tokens/s").split("_"))
    return f"{words} ×" if "_over_" in name and "%" not in words else words


def _ends(name: str, columns: set[str]) -> tuple[str, str] | None:
    stem = name.removesuffix("_pct")
    for low, high in ((f"{name}_low", f"{name}_high"), (f"{stem}_low_pct", f"{stem}_high_pct")):
        if {low, high} <= columns and name not in (low, high):
            return low, high
    return None


def table(frame: pd.DataFrame, names: Mapping[str, str] | Sequence[str] | None = None) -> str:
    """A Markdown table; a column that is empty is left out. names: the columns to show, in order, maybe with heads
    of their own instead of ``head``'s.

    Columns of numbers are set to the right.
    """
    if frame.empty:
        return "(no rows)"
    heads = dict(names) if isinstance(names, Mapping) else {name: head(name) for name in names or frame.columns}
    ends = {end for name in heads for end in _ends(name, set(frame.columns)) or ()}
    shown = frame[[name for name in frame.columns if name in heads or name in ends]]
    known = shown.dropna(axis="columns", how="all")
    folded = fold(known)
    order = [column for name in heads for column in (name, f"{name} [95%]") if column in folded]
    folded = folded[order]
    titles = [heads[name.removesuffix(" [95%]")] + (" [95%]" if name.endswith(" [95%]") else "") for name in order]
    right = [_is_number(known, name.removesuffix(" [95%]")) for name in order]
    rule = ["---:" if is_right else "---" for is_right in right]
    lines = [titles, rule, *folded.itertuples(index=False, name=None)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_number(frame: pd.DataFrame, name: str) -> bool:
    return pd.api.types.is_numeric_dtype(frame[name])
