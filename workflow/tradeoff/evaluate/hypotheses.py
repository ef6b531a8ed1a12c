"""What could make a loss as high as a guess: each known fault as an experiment on a small sample of windows.

A *scoring* fault lies in how the loss was taken: committing it on purpose must give the recorded loss. A *model* fault
lies in what was scored: undoing it must bring the loss down. *Evidence* needs no loss: it shows in the weights or in
the output. Losses are means over the sample, in nats a token; None where there is none or it is not finite.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workflow.tradeoff import architecture
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.evaluate.conventions import Window

SCORING, MODEL, EVIDENCE = "scoring", "model", "evidence"
FP16_MAX = 65504.0
# a fresh tensor of thousands of weights has its initializer's standard deviation within this share
FRESH_SHARE = 0.05
FRESH_TENSORS = 0.9
# standard deviation over the vocabulary below which logits say nothing: 0.05 lowers the loss by about 0.001 nats
FLAT_LOGITS = 0.05


@dataclass(frozen=True)
class Hypothesis:
    """name; kind: scoring, model or evidence; nll: the loss under it; detail in words.

    shows: what evidence says; of a model fault: it is certain, whatever the recorded loss.
    """

    name: str
    kind: str
    nll: float | None
    detail: str
    shows: bool = False


Score = Callable[[torch.Tensor, int], torch.Tensor]


def mean(values: Sequence[torch.Tensor]) -> float | None:
    total = torch.cat([value.flatten() for value in values]).mean().item() if values else math.nan
    return total if math.isfinite(total) else None


def losses(logits: torch.Tensor, targets) -> torch.Tensor:
    """NLL (n,) of targets (n,) under logits (n, V), in float32."""
    logp = torch.log_softmax(logits.float(), dim=-1)
    targets = torch.as_tensor(np.asarray(targets)).to(logits.device)
    return -logp.gather(1, targets[:, None])[:, 0].cpu()


def right(score: Score, windows: Sequence[Window]) -> list[torch.Tensor]:
    """The loss as it should be taken: the logits of a position against the token after it."""
    return [
        losses(score(_ids(window.inputs), len(window.inputs) - window.scored)[0], window.targets) for window in windows
    ]


def _ids(tokens) -> torch.Tensor:
    return torch.as_tensor(np.array(tokens), dtype=torch.int64)[None]


# --- scoring faults


def unshifted_labels(score: Score, windows: Sequence[Window]) -> Hypothesis:
    """The logits of a position against its own token."""
    values = [losses(score(_ids(window.inputs), 0)[0], window.inputs) for window in windows]
    return Hypothesis("unshifted_labels", SCORING, mean(values), "each position is held against its own token")


def doubly_shifted_labels(score: Score, windows: Sequence[Window]) -> Hypothesis:
    """Labels shifted by hand and once more by the library."""
    values = [
        losses(score(_ids(window.tokens[:-2]), 0)[0], window.tokens[2:])[-window.scored :]
        for window in windows
        if len(window.tokens) > 2
    ]
    return Hypothesis(
        "doubly_shifted_labels", SCORING, mean(values), "each position is held against the token after next"
    )


def padding_scored(
    score: Score, windows: Sequence[Window], pad: int | None, lengths: Sequence[int], recorded: float
) -> Hypothesis:
    """Rows padded to one length, the padding counted as text; of ``lengths`` the nearest to ``recorded`` is kept."""
    name = "padding_scored"
    if pad is None:
        return Hypothesis(name, SCORING, None, "the tokenizer has neither a padding nor an end token")
    best = Hypothesis(name, SCORING, None, "all windows have the same length, so nothing was padded")
    for length in dict.fromkeys(lengths):
        if all(len(window.tokens) >= length for window in windows):
            continue
        values = []
        for window in windows:
            tokens = [*window.tokens, *[pad] * (length - len(window.tokens))]
            first = len(window.inputs) - window.scored
            values.append(losses(score(_ids(tokens[:-1]), first)[0], tokens[first + 1 :]))
        tried = Hypothesis(name, SCORING, mean(values), f"rows are padded to {length} tokens and the padding is scored")
        if best.nll is None or (tried.nll is not None and abs(tried.nll - recorded) < abs(best.nll - recorded)):
            best = tried
    return best


# --- model faults


def missing_bos(score: Score, windows: Sequence[Window], bos: int | None) -> Hypothesis:
    """The same tokens with a BOS before each window."""
    if bos is None:
        return Hypothesis("missing_bos", MODEL, None, "the tokenizer has no BOS token")
    if all(window.tokens[0] == bos for window in windows):
        return Hypothesis("missing_bos", MODEL, None, "every window begins with a BOS already")
    values = []
    for window in windows:
        inputs = [bos, *window.inputs]
        values.append(losses(score(_ids(inputs), len(inputs) - window.scored)[0], window.targets))
    return Hypothesis("missing_bos", MODEL, mean(values), "the loss with a BOS before each window")


def other_heads(network, folder: Path, windows: Sequence[Window]) -> list[tuple[str, float | None]]:
    """(which head, loss) for each head that the model could have but does not: its embedding, or the file's own."""
    head, table = network.get_output_embeddings(), network.get_input_embeddings().weight
    stored = _stored_head(network, folder)
    found = []
    for name, weight in (("the input embedding", table), ("the head in the file", stored)):
        if weight is None or weight.shape != head.weight.shape or torch.equal(weight.float(), head.weight.float()):
            continue
        values = []
        for window in windows:
            with torch.inference_mode():
                hidden = network.base_model(input_ids=_ids(window.inputs), use_cache=False).last_hidden_state[0]
                values.append(losses((hidden @ weight.to(hidden.dtype).T)[-window.scored :], window.targets))
        found.append((name, mean(values)))
    return found


def drawn_head(network, folder: Path) -> bool:
    """Whether the head came from neither the files nor the embedding: random, and another one at every load."""
    return (
        _stored_head(network, folder) is None
        and network.get_output_embeddings().weight is not network.get_input_embeddings().weight
    )


def _stored_head(network, folder: Path) -> torch.Tensor | None:
    from safetensors import safe_open

    head = network.get_output_embeddings()
    key = next(name for name, module in network.named_modules() if module is head) + ".weight"
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if key in file.keys():  # noqa: SIM118 - the handle is no mapping
                return file.get_tensor(key)
    return None


def untied_head(network, folder: Path, windows: Sequence[Window], recorded: float, shown: float | None) -> Hypothesis:
    """The head is tied where it should not be, or fresh where it should be tied.

    shown: the loss as it should be taken. When it is not the recorded one, the fault was in the scoring run, unless the
    file holds no head and none is tied: then every load draws another, and no two losses agree.
    """
    tried = [(name, nll) for name, nll in other_heads(network, folder, windows) if nll is not None]
    if not tried:
        return Hypothesis("untied_head", MODEL, None, "the model has no other head than the one in use")
    name, nll = min(tried, key=lambda item: item[1])
    if drawn_head(network, folder):
        words = (
            f"the files hold no head and the config ties none, so each load draws one; the loss with {name} as the head"
        )
        return Hypothesis("untied_head", MODEL, nll, words, shows=True)
    if shown is not None and nll > shown:
        name, nll = min(tried, key=lambda item: abs(item[1] - recorded))
        return Hypothesis("untied_head", SCORING, nll, f"the loss if {name} had been the head")
    return Hypothesis("untied_head", MODEL, nll, f"the loss with {name} as the head")


def fp16_overflow(network, reference_nll: float | None, windows: Sequence[Window], half: bool) -> Hypothesis:
    """Activations beyond what float16 holds, in a model that computes in float16; undone by float32."""
    largest = largest_activation(network, windows)
    words = f"the largest activation is {largest:.3g}, float16 holds {FP16_MAX:.0f}"
    if not half:
        return Hypothesis("fp16_overflow", MODEL, None, f"the cell does not compute in float16; {words}")
    if largest <= FP16_MAX:
        return Hypothesis("fp16_overflow", MODEL, None, words)
    return Hypothesis("fp16_overflow", MODEL, reference_nll, f"{words}; the loss in float32")


def largest_activation(network, windows: Sequence[Window]) -> float:
    """Largest magnitude of any module's output over the sample, in float32. Infinite ones count."""
    largest = 0.0

    def watch(_module, _inputs, output):
        nonlocal largest
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                largest = max(largest, tensor.abs().max().item())

    # masks hold float32's own minimum and are no activations; they are no module's output
    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        with torch.inference_mode():
            for window in windows:
                network(input_ids=_ids(window.inputs), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


# --- evidence


def random_weights(network) -> Hypothesis:
    """Weights that still have their initializer's spread, biases of zero and norms of one."""
    config = network.config
    spread = getattr(config, "initializer_range", None)
    if not spread:
        return Hypothesis("random_weights", EVIDENCE, None, "the config does not say how weights are initialized")
    # GPT-2 shrinks the weights that end a residual branch
    usual = (spread, spread / math.sqrt(2 * architecture.layers(config)))
    fresh = tensors = 0
    for name, weight in network.named_parameters():
        value = weight.float()
        if weight.dim() == 2 and weight.numel() >= 1024:
            deviation = value.std().item()
            is_fresh = any(abs(deviation - expected) <= FRESH_SHARE * expected for expected in usual)
        elif weight.dim() == 1:
            is_fresh = bool((value == (0 if name.endswith("bias") else 1)).all())
        else:
            continue
        tensors += 1
        fresh += is_fresh
    words = f"{fresh} of {tensors} tensors are as initialized (standard deviation {spread}, zero biases, norms of one)"
    return Hypothesis("random_weights", EVIDENCE, None, words, shows=fresh >= FRESH_TENSORS * tensors)


def uniform_output(score: Score, windows: Sequence[Window], shown: float | None, uniform: float) -> Hypothesis:
    """Logits that hardly differ over the vocabulary, so that every token is as likely as any other."""
    spreads = [score(_ids(window.inputs), 0)[0].float().std(dim=-1).cpu() for window in windows]
    spread = mean(spreads)
    shown_spread = "NaN" if spread is None else f"{spread:.2g}"
    words = f"logits differ by {shown_spread} over the vocabulary (standard deviation)"
    return Hypothesis(
        "uniform_output",
        EVIDENCE,
        shown,
        f"{words}; ln V = {uniform:.3f}",
        shows=spread is not None and spread < FLAT_LOGITS,
    )


def scorer(engine: Engine) -> Score:
    return lambda ids, first: engine.score(ids, first=first)
