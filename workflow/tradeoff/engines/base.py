"""The one interface that every engine offers. Time is never taken in here."""

from typing import Protocol

import torch


class Engine(Protocol):
    """A loaded artifact, ready to run one sequence, or a batch of B sequences of one length (``score``: any batch).

    An engine keeps its own cache between ``prefill`` and ``decode``. Tokens stay on the device: the values
    handed from ``prefill`` to ``decode`` are whatever the engine returns, a (B, 1) int64 tensor.
    """

    context: int  # longest sequence, in tokens
    device: torch.device
    # optional: why it runs one sequence at a time, in words; absent or empty where it runs a batch
    one_at_a_time: str

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Run prompts, ids (B, T) int64 on the CPU, from an empty cache; greedy next token of each (B, 1)."""

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """Append one token (B, 1) to each sequence; greedy next token of each (B, 1)."""

    def score(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Logits (B, T - first, V) of ids (B, T) int64 on the CPU, for positions ``first`` and on.

        In the engine's own dtype, on the engine's device. Leaves the cache of ``prefill`` untouched.
        """

    def generate(self, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
        """What a user of the library calls: the whole greedy generation, ids (1, T) to (1, T + new_tokens).

        Never stops early. This is what the ``study`` protocol times.
        """

    def reserve(self, length: int) -> None:
        """Optional: make room in the cache for ``length`` tokens, so that it need not grow while it is timed."""

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""

    def cache_bytes(self, length: int) -> int:
        """Bytes that one sequence's cache of ``length`` tokens takes, by its own tensors; 0 without one.

        Begins a new sequence.
        """

    def proof(self) -> dict:
        """What really ran. Keys that every engine gives:

        weight_bytes: {dtype: bytes} of all parameters in memory, quantization constants included;
        unread_bytes: of these, what a decoded token does not read (tables but for a row, experts it is not sent to);
        linear_weights: number of weights in matrices that a step multiplies by, in whatever layout (see ``matrices``);
        linear_quantized: how many of these are stored in the variant's own number of bits;
        quantized_fraction: their ratio;
        cache: whether past keys and values are used.
        transformers' add ``left_unquantized`` {matrix: weights in other bits than the variant's, a ``*`` for each
        layer's number}, ``parameters`` {"dtype@device": count}, ``attention`` and ``attention_left_out`` (what the
        model's default would leave out, so that eager ran); ONNX adds ``nodes`` {op type: count}, ``providers``
        {provider: nodes}, ``heavy_elsewhere`` (op types of matrix products that run on a
        provider other than the one asked for) and ``memcpy`` (nodes). An engine may add ``counted``, what
        ``linear_quantized`` counts where it is not the variant's bits, as words after "the linear weights are", and
        ``remarks``, sentences that stand beside the cell's figures.
        """
