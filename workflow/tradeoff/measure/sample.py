"""One fresh process of a measurement: load an artifact, take samples, and write raw times, memory and proof.

``measure`` starts it, once per replicate; by hand:

    python -m workflow.tradeoff.measure.sample --variant torch-fp32 --artifact M --model-folder M --warmup 1 \\
        --samples 1 \\
        --prompt-tokens 32 --new-tokens 32 --study-runs 2 --device cpu --threads 2 --proof --output /tmp/sample.json
"""

import itertools
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

from workflow.tradeoff import engines, errors, files
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import CellFailure, UserError
from workflow.tradeoff.measure import memory, roofline, telemetry
from workflow.tradeoff.run import shortage
from workflow.tradeoff.variants import VARIANTS

STUDY_PROMPT = "Hello, how are you?"
STUDY_NEW_TOKENS = 10
# real text, since some kernels (INT8 with outliers) take longer for some activations; repeated to any length
PASSAGE = (
    "The harbour town had two clocks, and for as long as anyone could remember they had disagreed by four minutes. "
    "Ships left by one and shops closed by the other. When a new mayor wished to set them alike, a long debate began. "
)
CALIBRATION = 256  # width of the matrices of the calibration loop
GROWTH_TOKENS = 6  # of each generation that shows the cache's growth
RETAKES = 3  # of a sample that a throttled GPU spoiled


def take(engine: Engine, ids: torch.Tensor, new_tokens: int) -> dict:
    """One timed greedy generation: ``ttft_s``, and ``itl_s`` with a time per further token (new_tokens - 1).

    The device is waited for after every token, as a reader who sees tokens appear would have it.
    """
    clock = time.perf_counter
    engine.synchronize()
    times = [clock()]
    token = engine.prefill(ids)
    engine.synchronize()
    times.append(clock())
    for _ in range(new_tokens - 1):
        token = engine.decode(token)
        engine.synchronize()
        times.append(clock())
    steps = [after - before for before, after in itertools.pairwise(times)]
    return {"ttft_s": steps[0], "itl_s": steps[1:]}


class Idle:
    """An engine that does nothing: what ``take`` measures on it is the harness itself."""

    def prefill(self, ids):
        return ids

    decode = prefill

    def synchronize(self):
        pass


def harness_seconds(tokens: int = 10_000) -> float:
    """Seconds that the measuring loop itself adds to a token."""
    times = take(Idle(), None, tokens)["itl_s"]
    return sum(times) / len(times)


def calibrate(device: torch.device) -> float:
    """Seconds of a fixed piece of work, done before each sample: its drift is the machine's, not the cell's."""
    matrix = torch.full((CALIBRATION, CALIBRATION), 1 / CALIBRATION, device=device)
    for attempt in range(2):  # the first one warms up
        start = time.perf_counter()
        product = matrix
        for _ in range(40):
            product = product @ matrix
        product.sum().item()
        if attempt:
            return time.perf_counter() - start


def cache_growth(engine: Engine, ids: torch.Tensor) -> dict:
    """Median seconds of a decode step after a short prompt and after one eight times as long.

    A cache that is really used makes the second about as fast as the first, since only the read of the cache grows.
    """
    room = max(1, engine.context - GROWTH_TOKENS)
    result = {"lengths": [min(ids.shape[1], room), min(8 * ids.shape[1], room)], "step_s": []}
    for length in result["lengths"]:
        prompt = ids.repeat(1, -(-length // ids.shape[1]))[:, :length]
        steps = sorted(take(engine, prompt, GROWTH_TOKENS)["itl_s"])
        result["step_s"].append(steps[len(steps) // 2])
    return result


def standard(engine: Engine, ids: torch.Tensor, new_tokens: int, warmup: int, samples: int) -> dict:
    """Warm up, then take samples of the standard protocol; a sample that a throttled GPU spoiled is taken again."""
    # a GPU's libraries choose their kernels anew for each length, so its warm-up passes through all of them
    length = new_tokens if engine.device.type == "cuda" else min(new_tokens, 8)
    for _ in range(warmup):
        take(engine, ids, length)
    taken, calibration, sampled, rejected = [], [], [], 0
    while len(taken) < samples:
        calibration.append(calibrate(engine.device))
        with telemetry.Sampler(engine.device) as sampler:
            sample = take(engine, ids, new_tokens)
        sampled.append(sampler.summary())
        if sampler.throttled and rejected < RETAKES:
            rejected += 1
            continue
        taken.append(sample)
    return {"samples": taken, "calibration_s": calibration, "telemetry": sampled, "rejected": rejected}


def study(engine: Engine, ids: torch.Tensor, runs: int) -> list[dict]:
    """The study's protocol: whole ``generate`` calls of STUDY_NEW_TOKENS tokens, prefill included.

    None at all where the prompt and these tokens do not fit the model's context.
    """
    if (length := ids.shape[1] + STUDY_NEW_TOKENS) > engine.context:
        print(f"the study's protocol is left out: it takes {length} tokens, the model {engine.context}")
        return []
    results = []
    for _ in range(runs):
        engine.synchronize()
        start = time.perf_counter()
        engine.generate(ids, STUDY_NEW_TOKENS)
        engine.synchronize()
        results.append({"total_s": time.perf_counter() - start, "new_tokens": STUDY_NEW_TOKENS})
    return results


def encode(model: Path, text: str) -> torch.Tensor:
    """Token ids (1, T) of a text, without special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])


def passage_ids(model: Path, length: int) -> torch.Tensor:
    """The first ``length`` token ids (1, length) of PASSAGE, repeated as often as that takes."""
    ids = encode(model, PASSAGE)
    return ids.repeat(1, -(-length // ids.shape[1]))[:, :length]


def sample(args) -> dict:
    variant = VARIANTS[args.variant]
    watch = memory.Watch(args.device)
    start = time.perf_counter()
    engine = engines.load(variant, args.artifact, args.model_folder, args.device, args.threads)
    engine.synchronize()
    result = {"status": "ok", "reason": "", "started": time.time(), "load_s": time.perf_counter() - start}
    result["torch_threads"] = torch.get_num_threads()
    watch.mark("load")
    ids = passage_ids(args.model_folder, args.prompt_tokens)
    length = args.prompt_tokens + args.new_tokens
    if length > engine.context:
        raise UserError(
            f"measure: prompt_tokens + new_tokens is {length}, more than the {engine.context} tokens that "
            f"{args.model_folder.name} takes: lower one of them"
        )
    if hasattr(engine, "reserve"):
        engine.reserve(length)
    result |= standard(engine, ids, args.new_tokens, args.warmup, args.samples)
    watch.mark("decode")
    result["harness_s"] = harness_seconds()
    prompt = encode(args.model_folder, STUDY_PROMPT)
    result["study"] = {"prompt_tokens": prompt.shape[1], "samples": study(engine, prompt, args.study_runs)}
    if args.proof:
        disk = sum(path.stat().st_size for path in args.artifact.iterdir() if path.name != "manifest.json")
        proof = engine.proof()
        result["memory"] = {
            "disk_bytes": disk,
            "weight_bytes": sum(proof["weight_bytes"].values()),
            "cache_bytes": engine.cache_bytes(length),
            "cache_length": length,
            **watch.result(),
        }
        proof["bytes_per_token"] = roofline.bytes_per_token(proof, engine.cache_bytes(length))
        proof["cache_growth"] = cache_growth(engine, ids)
        result["proof"] = proof
        result["kernels"] = roofline.kernel_profile(engine)
        result["bandwidth"] = roofline.measure_bandwidth(args.device, args.threads)
    return result


def main(argv: list[str]) -> None:
    parser = errors.parser(__doc__)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--model-folder", type=Path, required=True)
    for name in ("warmup", "samples", "prompt-tokens", "new-tokens", "study-runs", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--proof", action="store_true", help="also record memory, proof and bandwidth")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        result = sample(args)
    except CellFailure as failure:
        result = {"status": failure.status, "reason": failure.reason}
    except Exception as error:
        failure = shortage.of(error, VARIANTS[args.variant], args.artifact, args.device)
        if failure is None:
            raise
        result = {"status": failure.status, "reason": failure.reason}
    files.write_json(args.output, result)


if __name__ == "__main__":
    errors.run(main)
