"""What a job will need, before it runs: memory and time, from the model's size and the study's protocol.

    size = needs.of_manifest(Path("results/demo/models/smollm2-135m/manifest.json"))
    needs.memory_mb("measure", size, config)
    needs.minutes("measure", size, config, "cpu", variant=VARIANTS["onnx-fp32"], threads=2)

Bounds to ask a scheduler for, not predictions: the rates are those of slow variants on plain machines. Peaks of earlier
runs, by which the factors were chosen, stand in each report's appendix.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.tradeoff import loads
from workflow.tradeoff.files import read_json
from workflow.tradeoff.variants import Variant, calibrated, widths

BASE_MB = 1500  # the interpreter and the libraries, and what an allocator keeps
# resident memory at the peak, in copies of the float32 weights
COPIES = {
    "fetch_model": 2.0,
    "fetch_checkpoint": 0.0,
    "export": 4.0,
    "quantize": 2.5,
    "fuse": 2.5,
    "gguf": 2.5,
    "auto_round": 4.0,
    "measure": 4.0,
    "evaluate": 2.5,
    "diagnose": 4.0,
}
SCORES = 4  # copies of a forward pass's float32 logits while they are scored, one of them in float64
VOCABULARY = 128_256  # of a model that is not there yet: that of Llama 3
# operations a second (on the CPU, of one thread), and bytes a second that decoding reads
OPERATIONS = {"cpu": 2e10, "cuda": 4e12}
READ = {"cpu": 8e9, "cuda": 1e11}
LAUNCHES_S = 0.03  # of one eager token on a GPU, whatever the model's size
START_S = 15.0  # imports, once a job
LOADED = 2e8  # bytes a second from a file into an engine, quantized on the way
WRITTEN = 2e7  # bytes of float32 weights a second that an export, or a quantization, gets through
LEARNED_BATCH = 4  # pieces of text that a step of AutoRound learns from
WEIGHTED = 32 * 512  # tokens of the calibration text that an importance matrix is made of
CORPUS = 350_000  # tokens of a whole corpus: those of WikiText-2's test split, and some more
STUDY_TOKENS = 10
PROMPTS = 10  # texts that an evaluation generates
PAIRS = 3  # of processes, which a cell takes in any case
UNWATCHED = ("fetch_model", "fetch_checkpoint", "diagnose")  # stages that no limit ends
MARGIN = 2.0
FLOOR_MINUTES = 10


@dataclass(frozen=True)
class Size:
    """A model's parameters, its vocabulary, and the bytes of its weights on disk."""

    parameters: int
    vocabulary: int
    stored: int

    @property
    def float32(self) -> int:
        return 4 * self.parameters


def of_manifest(path: Path) -> Size:
    """The size of a model that was fetched. FileNotFoundError before it is, which Snakemake takes for: ask again."""
    manifest = read_json(path)
    stored = sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".safetensors"))
    return Size(manifest["parameters"], manifest["vocab_size"], stored)


def memory_mb(stage: str, size: Size, config: Mapping) -> int:
    """Resident memory of a stage's job, in MB of 10**6 bytes."""
    needed = COPIES[stage] * size.float32
    if stage in ("evaluate", "diagnose"):
        needed += SCORES * 4 * config["evaluate"]["batch_tokens"] * size.vocabulary
    if stage == "measure":  # an engine may give the logits of a whole batch of prompts
        prompts = max((load.sequences * load.prompt_tokens for load in loads.further(config["measure"])), default=0)
        needed += 2 * 4 * prompts * size.vocabulary
    return BASE_MB + math.ceil(needed / 1e6)


def card_mb(size: Size, variant: Variant, config: Mapping) -> int:
    """Memory of a card that a cell's evaluation takes, in MB: weights, logits of a pass, and the driver's context."""
    weights = size.parameters * (variant.recipe.get("average_bits") or variant.bits or 16) / 8
    scores = 3 * 4 * config["evaluate"]["batch_tokens"] * size.vocabulary
    return 1000 + math.ceil((weights + scores) / 1e6)


def seconds(
    stage: str, size: Size, config: Mapping, device: str, variant: Variant | None = None, threads: int = 1
) -> float:
    """How long a stage's job takes at most, if the machine is no slower than the rates say."""
    load = size.float32 / LOADED
    if stage == "fetch_checkpoint":
        return START_S + load
    if stage == "auto_round":
        return START_S + load + size.float32 / WRITTEN + _learned(size, device, variant, threads)
    if stage in ("fetch_model", "export", "quantize", "fuse", "gguf"):
        read = WEIGHTED if variant is not None and variant.recipe.get("imatrix") else 0
        return START_S + load + size.float32 / WRITTEN + read * 2 * size.parameters / (OPERATIONS["cpu"] * threads)
    if variant is not None and (variant.option("provider") == "cpu" or variant.quantizer == "dynamic"):
        device = "cpu"  # ONNX Runtime's dynamic INT8 has no kernels for a card
    rate = OPERATIONS[device] * (threads if device == "cpu" else 1)
    passed = 2 * size.parameters / rate  # a token of a forward pass

    def generation(prompt: int, new: int) -> float:
        """A text of ``new`` tokens; without a cache the whole sequence runs again for each."""
        if variant is not None and not variant.cache:
            return new * (prompt + new) * passed
        step = max(passed, size.float32 / READ[device]) + (LAUNCHES_S if device == "cuda" else 0)
        return prompt * passed + new * step

    if stage == "measure":
        protocol = config["measure"]
        pairs, total = max(PAIRS, protocol["pairs"]), START_S
        for point in loads.measured(protocol):
            batch = generation(point.sequences * point.prompt_tokens, point.sequences * point.new_tokens)
            timed = (protocol["warmup"] + protocol["turns"]) * batch
            study = protocol["study_runs"] * generation(STUDY_TOKENS, STUDY_TOKENS) * (point.name == loads.STANDARD)
            total += max(protocol["budget_s"], pairs * 2 * (load + timed + study))
        return total
    scored = config["evaluate"]["max_tokens"] or CORPUS
    if stage == "diagnose":
        return START_S + 2 * load
    tokens = scored * len(config["evaluate"]["conventions"]) + 2 * config["evaluate"]["divergence_tokens"]
    texts = PROMPTS * generation(STUDY_TOKENS, config["evaluate"]["generate_tokens"])
    return START_S + load + tokens * passed + texts


def _learned(size: Size, device: str, variant: Variant | None, threads: int) -> float:
    """Seconds of AutoRound's steps: each block forward and back, on a batch of pieces; and what gives it its inputs."""
    if variant is None:
        return 0.0
    recipe = variant.recipe
    pieces = recipe["samples"] * (2 if calibrated(recipe) else 0) + LEARNED_BATCH * recipe["iterations"]
    # each width of a mixed one is tried
    pieces += recipe["samples"] * len(widths(recipe)) if recipe["average_bits"] else 0
    rate = OPERATIONS[device] * (threads if device == "cpu" else 1)
    return pieces * recipe["length"] * 3 * 2 * size.parameters / rate


def minutes(
    stage: str, size: Size, config: Mapping, device: str, variant: Variant | None = None, threads: int = 1
) -> int:
    """Minutes to ask a scheduler for: ``seconds`` with a margin, in which what hangs can be ended first."""
    expected = seconds(stage, size, config, device, variant, threads)
    hung = 0 if stage in UNWATCHED else hung_after_s(stage, expected, config)
    return FLOOR_MINUTES + math.ceil(max(MARGIN * expected, expected + hung) / 60)


def hung_after_s(stage: str, expected: float, config: Mapping) -> int:
    """Seconds without progress after which a stage's work is ended: the config's; 0 for never.

    What prepares says little of its progress, so it may take the ``expected`` seconds of its whole job, where these are
    more.
    """
    limit = config["hung_after_s"]
    return max(limit, math.ceil(expected)) if limit and stage not in ("measure", "evaluate") else limit
