"""What stands under each table: protocol, prompt and new tokens, replicates, device and threads of its cells."""

from collections.abc import Iterable, Sequence

import pandas as pd

from workflow.tradeoff.summarize import tables
from workflow.tradeoff.summarize.cells import Cell

BASELINE = (
    "Speedup and reduction are against the same model's baseline only; a speedup pairs each process with the "
    "baseline's beside it and is not the quotient of two speeds of this table, which were taken at different times."
)


def protocol_facts(cells: Iterable[Cell], name: str) -> dict | None:
    """What the cells of a study say of a protocol; a value that differs between cells is given as all its values."""
    found = [cell.speed for cell in cells if name in (cell.speed.get("protocols") or {})]
    if not found:
        return None
    protocols = [speed["protocols"][name] for speed in found]
    runs = [[run for run in protocol["replicates"] if run["role"] == "cell"] for protocol in protocols]
    return {
        "protocol": name,
        "prompt_tokens": _values(protocol.get("prompt_tokens") for protocol in protocols),
        "new_tokens": _values(protocol.get("new_tokens") for protocol in protocols),
        "warmup": _values(protocol.get("warmup") for protocol in protocols),
        "replicates": _range(len(own) for own in runs),
        "samples": _values(len(run["samples"]) for own in runs for run in own),
        "device": _values(speed["device"] for speed in found),
        "threads": _values(speed["threads"] for speed in found),
    }


def _values(items) -> str:
    return ", ".join(str(item) for item in sorted({item for item in items if item is not None}, key=_rank))


def _range(counts: Iterable[int]) -> str:
    """``3``, or ``2 to 6``."""
    known = sorted(set(counts))
    return " to ".join(str(count) for count in dict.fromkeys((known[0], known[-1])))


def _rank(item) -> tuple[int, float, str]:
    return (0, item, "") if isinstance(item, int | float) else (1, 0.0, str(item))


def sentence(facts: dict | None) -> str:
    """The facts of a protocol in one line under a table."""
    if facts is None:
        return "No speed was measured."
    what = "decode alone" if facts["protocol"] == "standard" else "the whole generate call, prompt included"
    warm = f" after {facts['warmup']} warm-up" if facts["warmup"] else ""
    name = "standard" if facts["protocol"] == "standard" else "of the paper"
    return (
        f"Protocol {name} ({what}): {facts['prompt_tokens']} prompt tokens, "
        f"{facts['new_tokens']} new tokens, batch 1, greedy; {facts['replicates']} fresh processes, "
        f"{facts['samples']} timed in each{warm}; "
        f"device {facts['device']}, threads {facts['threads']}."
    )


WEIGHTED = " paper_perplexity weights the rows as the paper did."


def build(cells: Sequence[Cell], summary: pd.DataFrame) -> dict[str, dict]:
    """{table: {"title", "note", "protocol": facts}}; every table that summarize writes has an entry."""
    facts = {name: protocol_facts(cells, name) for name in ("standard", "study")}
    shown = tables.study_protocol(summary)
    speed = sentence(facts[shown])
    memory = _values(summary["memory_kind"].dropna())
    kinds = f"Weights as they lie in memory; peaks are {memory or 'not measured'}."
    corpus = _values(
        f"{entry['name']} (licence {entry['license']}, sha256 {entry['sha256'][:12]})"
        for cell in cells
        if (entry := cell.quality.get("corpus"))
    )
    where = _values(summary["device"].dropna())
    text = f"Corpus {corpus or 'none'}. Scored on {where or 'no device'}; intervals are over blocks of text, at 95%."
    tokens = _values(int(count) for count in summary["eval_tokens"].dropna())
    weighted = any(
        "paper_loss" in found for cell in cells for found in (cell.quality.get("conventions") or {}).values()
    )
    paired = f"{text} Compared token by token with the same model's baseline."
    titles = {
        "summary": (
            "Every cell",
            f"{sentence(facts['standard'])} {BASELINE} {kinds} {paired} {tokens} tokens a cell.",
            "standard",
        ),
        "benchmark": ("Benchmark", f"{speed} {BASELINE} Memory is that of the weights.", shown),
        "onnx": (
            "ONNX Runtime",
            f"{speed} {BASELINE} The last two columns are against onnx-fp32, as the paper's.",
            shown,
        ),
        "perplexity": ("Perplexity", text + (WEIGHTED if weighted else ""), None),
        "degradation": ("Accuracy degradation", paired, None),
        "accuracy_drop": (
            "Accuracy drop",
            f"{paired} Quality score: rubric of 1 to 5 over the generated texts; it tells text from loops and noise, "
            "not a good answer from a bad one: perplexity does that.",
            None,
        ),
        "speed_by_precision": ("Speed by precision, tokens/s", f"{speed} {BASELINE}", shown),
        "memory_by_precision": ("Memory by precision, GB of weights", f"{kinds} {BASELINE}", None),
        "efficiency_matrix": (
            "Efficiency and accuracy",
            f"{sentence(facts['standard'])} Memory is that of the weights; accuracy is baseline perplexity over the "
            "variant's; overall is their product, in the paper's words: poor < 1, fair < 2, high < 4, excellent. It "
            "knows no limit on accuracy, so it is no advice: what is admissible, and best, is under Scenarios.",
            "standard",
        ),
        "memory": ("Memory, MB", f"{kinds} {BASELINE}", "standard"),
        "latency": ("Latency, ms", sentence(facts["standard"]), "standard"),
        "itl": ("Inter-token latency, quantiles", sentence(facts["standard"]), "standard"),
        "growth": (
            "Inter-token latency by length",
            f"{sentence(facts['standard'])} Rows of the proof are the least of a few steps after each length.",
            "standard",
        ),
        "launch": (
            "Eager and as a CUDA graph",
            f"{sentence(facts['standard'])} Kernels, launches and times are per token, of a profiled decode step. "
            "Busy: the device works; waiting: the rest of the step. A ratio of two cells that did not run in turns "
            "with each other is that of their speedups, the intervals combined on the log scale.",
            "standard",
        ),
        "divergence": ("Divergence from the baseline", f"{text} KL in nats a token, over the full vocabulary.", None),
        "proof": ("What really ran", "Read from the loaded weights and graphs, not from names.", None),
        "conventions": ("Perplexity by convention", paired, None),
        "generated": ("Generated text", "Greedy. first_difference: first token that is not the baseline's.", None),
        "loads": (
            "Under load",
            "tokens_per_s is of all sequences while they decode, tokens_per_s_each of one; throughput counts the "
            "prompt's time too. Every ratio is against the baseline at the same load, pairs of processes in turn. "
            "cache_mb is the keys and values of all sequences; peaks are of a process that has the machine to itself.",
            None,
        ),
        "crossings": (
            "Who overtakes whom under load",
            "Speedup curves over loads that differ in one thing alone, interpolated on logarithmic scales; the "
            "interval is where the difference of two speedups is not told from none.",
            None,
        ),
        "resources": ("Time and memory of the workflow itself", "From Snakemake's benchmark files.", None),
    }
    return {
        name: {"title": title, "note": note, "protocol": facts.get(protocol) if protocol else None}
        for name, (title, note, protocol) in titles.items()
    }
