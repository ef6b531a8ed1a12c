"""One timed generation of an engine, what the harness itself adds to it, and what a step costs as the text grows."""

import itertools
import time

import torch

from workflow.tradeoff import growth
from workflow.tradeoff.engines.base import Engine

CALIBRATION = 256  # width of the matrices of the calibration loop
GROWTH_TOKENS = 6  # of each generation that shows the cache's growth
GROWTH_ROUNDS = 3
DOUBT_S = 5.0  # for which a step that looks like a pass is timed again: others on the machine can make it look so


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


def cache_growth(engine: Engine, ids: torch.Tensor, cached: bool = True) -> dict:
    """Least seconds of a decode step, and of the pass over the prompt, after a short one and one eight times as long.

    A cache that is really used makes a step after the second about as fast as after the first, since only the read of
    the cache grows; the pass over the prompt is what a step costs without one. The lengths take turns, so that what
    others took of the machine for a while meets both, and more rounds are taken while a step looks like a pass, unless
    nobody promised a cache (``cached``).
    """
    room = max(1, engine.context - GROWTH_TOKENS)
    lengths = [min(ids.shape[1], room), min(8 * ids.shape[1], room)]
    prompts = [ids.repeat(1, -(-length // ids.shape[1]))[:, :length] for length in lengths]
    # the least, since others can only add to it, and a first pass of a length may plan its kernels
    found = {"lengths": lengths, "step_s": [float("inf")] * 2, "pass_s": [float("inf")] * 2, "rounds": 0}
    start = time.perf_counter()
    while found["rounds"] < GROWTH_ROUNDS or (
        cached and growth.costs_a_pass(found["step_s"], found["pass_s"]) and time.perf_counter() - start < DOUBT_S
    ):
        for place, prompt in enumerate(prompts):
            taken = take(engine, prompt, GROWTH_TOKENS)
            found["pass_s"][place] = min(found["pass_s"][place], taken["ttft_s"])
            found["step_s"][place] = min(found["step_s"][place], *taken["itl_s"])
        found["rounds"] += 1
    return found
