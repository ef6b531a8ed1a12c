"""Whether an exported file computes what the model does: torch's logits, by eager attention, against ONNX Runtime's.

An export is a recording of one run, of some dozen tokens. What a model does otherwise for longer texts, or further on
in them (a window of attention, a scaled rotation, an expert that no recorded token was sent to), is lost without a
word; so the two are compared over lengths up to the longest that the study scores, whole and token by token.
"""

from dataclasses import dataclass

import torch

SHORT = 16  # tokens, the least length that is compared
STEPS = 8  # tokens that are run one by one through the cache, at the end of each length
KEPT = 64  # positions of a length whose logits are compared, spread over it, beside the last STEPS
# largest difference of a logit, in nats, that float32 sums in another order explain: tiny models differ by 1e-6, and
# by 1e-3 after dozens of layers with activations in the hundreds
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Expected:
    """ids (1, n), positions (k,) of it, and torch's logits (k, V) there."""

    ids: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor


def lengths(longest: int, context: int) -> list[int]:
    """Lengths that are compared: short, a quarter, and ``longest``, as far as the context reaches."""
    longest = min(max(longest, SHORT), context)
    return sorted({min(SHORT, longest), max(longest // 4, min(SHORT, longest)), longest})


def probe(length: int, vocabulary: int) -> torch.Tensor:
    """A fixed sequence (1, length) of token ids spread over the vocabulary, int64."""
    return (torch.arange(length)[None] * 7919 + 1) % vocabulary


def expect(reference, vocabulary: int, longest: int) -> list[Expected]:
    """What torch gives for each length; reference: an ``HfEngine`` in float32, whose attention is eager meanwhile."""
    network = reference.network
    kind = network.config._attn_implementation
    network.set_attn_implementation("eager")
    found = []
    for length in lengths(longest, reference.context):
        ids = probe(length, vocabulary)
        steps = min(STEPS, length // 2)
        spread = torch.linspace(0, length - 1, min(KEPT, length)).long()
        positions = torch.cat([spread, torch.arange(length - steps, length)]).unique()
        found.append(Expected(ids, positions, reference.score(ids)[0, positions].clone()))
    network.set_attn_implementation(kind)
    return found


def compare(engine, expected: list[Expected]) -> list[dict]:
    """Per length: the largest difference of a logit and the share of positions with the same most likely token.

    engine: an ``OnnxEngine``; with a cache, the last tokens of each length are run one by one too.
    """
    found = []
    for case in expected:
        length = case.ids.shape[1]
        got = {"whole": engine.score(case.ids)[0, case.positions]}
        if engine.past:
            got["cached"] = _stepwise(engine, case.ids, length - min(STEPS, length // 2))
        wanted = {"whole": case.logits, "cached": case.logits[len(case.logits) - min(STEPS, length // 2) :]}
        for way, logits in got.items():
            found.append(
                {
                    "tokens": length,
                    "way": way,
                    "max_abs_difference": (logits - wanted[way]).abs().max().item(),
                    "same_top": (logits.argmax(-1) == wanted[way].argmax(-1)).float().mean().item(),
                }
            )
    return found


def _stepwise(engine, ids: torch.Tensor, start: int) -> torch.Tensor:
    """Logits (n - start, V) of the tokens from ``start`` on, each run alone after the cache of those before."""
    _, cache = engine.run(ids[:, :start].contiguous(), {}, 0)
    rows = []
    for at in range(start, ids.shape[1]):
        logits, cache = engine.run(ids[:, at : at + 1].contiguous(), cache, at)
        rows.append(logits[0, -1])
    return torch.stack(rows)
