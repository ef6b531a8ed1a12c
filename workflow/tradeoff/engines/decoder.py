"""GPT-2 and Llama over bare tensors: a prompt at once, or one token against a static cache.

Written apart from transformers so that a step has no data-dependent shape, no allocation that moves, and few kernels:
what a CUDA graph needs. transformers' own forward pass is its oracle, in the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow.tradeoff import architecture
from workflow.tradeoff.engines import linear
from workflow.tradeoff.errors import CellFailure

KNOWN = ("gpt2", "llama")
PART = 1024  # logits that one program searches for the most likely token


class Norm(NamedTuple):
    """LayerNorm with a bias, RMSNorm without."""

    weight: Tensor
    bias: Tensor | None


class Layer(NamedTuple):
    """One transformer block; qkv and, for Llama, up (gate, then up) are one product each instead of several."""

    norm1: Norm
    qkv: linear.Weight
    out: linear.Weight
    norm2: Norm
    up: linear.Weight
    down: linear.Weight


@dataclass(frozen=True)
class Shape:
    kind: str  # gpt2 or llama
    heads: int
    kv_heads: int
    width: int  # of a head
    eps: float


@dataclass
class Decoder:
    """The weights of a model. positions: GPT-2's table (context, hidden); rotary: Llama's frequencies."""

    shape: Shape
    embedding: Tensor
    positions: Tensor | None
    rotary: nn.Module | None
    layers: list[Layer]
    norm: Norm
    head: linear.Weight

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def tables(self, length: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Cosines and sines (length, width) of rotary positions 0 to length; None for GPT-2."""
        if self.rotary is None:
            return None, None
        device = self.embedding.device
        cosine, sine = self.rotary(self.embedding[:1].float(), torch.arange(length, device=device)[None])
        return cosine[0], sine[0]

    def tensors(self):
        """Every tensor of the weights, each storage once."""
        seen = set()
        rotary = list(self.rotary.buffers()) if self.rotary is not None else []
        parts = [self.embedding, self.positions, *rotary, *self.norm, *self.head]
        for layer in self.layers:
            parts += [tensor for part in layer for tensor in part]
        for part in parts:
            if isinstance(part, Tensor) and part.data_ptr() not in seen:
                seen.add(part.data_ptr())
                yield part

    def linears(self):
        for layer in self.layers:
            yield from (layer.qkv, layer.out, layer.up, layer.down)
        yield self.head


def from_network(network, convert=None) -> Decoder:
    """The weights of a transformers GPT-2 or Llama, which is emptied on the way so that nothing is held twice.

    convert: applied to every linear weight, the LM head included (weight-only quantizers).
    Raises CellFailure for another architecture, or a setting that the step does not compute.
    """
    config = network.config
    convert = convert or (lambda weight: weight)

    def take(*modules):
        weights = [linear.from_module(module) for module in modules]
        return convert(weights[0] if len(weights) == 1 else linear.concatenate(weights))

    if config.model_type == "gpt2":
        _require(config, activation_function="gelu_new", scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
        body, blocks = network.transformer, network.transformer.h
        shape = Shape("gpt2", config.n_head, config.n_head, config.n_embd // config.n_head, config.layer_norm_epsilon)
        embedding, positions, rotary, last = body.wte.weight.data, body.wpe.weight.data, None, body.ln_f
    elif config.model_type == "llama":
        _require(config, hidden_act="silu")
        body, blocks = network.model, network.model.layers
        heads = architecture.heads(config)
        width = architecture.head_size(config)
        shape = Shape("llama", heads, architecture.kv_heads(config), width, config.rms_norm_eps)
        embedding, positions, rotary, last = body.embed_tokens.weight.data, None, body.rotary_emb, body.norm
    else:
        raise CellFailure("unsupported", f"graph variants know GPT-2 and Llama, not {config.model_type}")
    layers = []
    for index in range(len(blocks)):
        block = blocks[index]
        if shape.kind == "gpt2":
            parts = block.ln_1, (block.attn.c_attn,), block.attn.c_proj, block.ln_2, (block.mlp.c_fc,), block.mlp.c_proj
        else:
            attention, mlp = block.self_attn, block.mlp
            qkv = attention.q_proj, attention.k_proj, attention.v_proj
            parts = (
                block.input_layernorm, qkv, attention.o_proj,
                block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj), mlp.down_proj,
            )  # fmt: skip
        norm1, qkv, out, norm2, up, down = parts
        layers.append(Layer(_norm(norm1), take(*qkv), take(out), _norm(norm2), take(*up), take(down)))
        blocks[index] = nn.Identity()
        del block, parts, norm1, qkv, out, norm2, up, down
    return Decoder(shape, embedding, positions, rotary, layers, _norm(last), take(network.lm_head))


def _require(config, **settings) -> None:
    for key, value in settings.items():
        if getattr(config, key, value) != value:
            raise CellFailure(
                "unsupported", f"graph variants need {key}={value}; this model has {getattr(config, key)}"
            )


def _norm(module) -> Norm:
    bias = getattr(module, "bias", None)
    return Norm(module.weight.data, None if bias is None else bias.data)


def normalize(x: Tensor, norm: Norm, eps: float) -> Tensor:
    if norm.bias is not None:
        return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps)
    values = x.float()
    values = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + eps)
    return norm.weight * values.to(x.dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions, halves layout: x (B, heads, T, width), tables (T, width)."""
    low, high = x.chunk(2, -1)
    return (x * cosine + torch.cat((-high, low), -1) * sine).to(x.dtype)


def split_heads(hidden: Tensor, shape: Shape, cosine: Tensor | None, sine: Tensor | None):
    """Queries (B, heads, T, width), keys and values (B, KV heads, T, width) of the qkv product (B, T, N), rotated."""
    batch, length, _ = hidden.shape
    kept = shape.kv_heads * shape.width
    query, key, value = hidden.split([shape.heads * shape.width, kept, kept], -1)
    query = query.reshape(batch, length, shape.heads, shape.width).transpose(1, 2)
    key = key.reshape(batch, length, shape.kv_heads, shape.width).transpose(1, 2)
    value = value.reshape(batch, length, shape.kv_heads, shape.width).transpose(1, 2)
    if cosine is not None:
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
    return query, key, value


def activate(hidden: Tensor, kind: str) -> Tensor:
    """GPT-2's tanh GELU, or Llama's gated SiLU of (gate, up)."""
    if kind == "gpt2":
        return functional.gelu(hidden, approximate="tanh")
    gate, up = hidden.chunk(2, -1)
    return functional.silu(gate) * up


def prompt_block(x: Tensor, layer: Layer, shape: Shape, cosine, sine) -> tuple[Tensor, Tensor, Tensor]:
    """One block over a whole sequence, x (B, T, hidden): the new x, and its keys and values."""
    hidden = linear.product(normalize(x, layer.norm1, shape.eps), layer.qkv)
    query, key, value = split_heads(hidden, shape, cosine, sine)
    repeats = shape.heads // shape.kv_heads
    attended = functional.scaled_dot_product_attention(
        query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), is_causal=True
    )
    x = linear.product(attended.transpose(1, 2).reshape(*x.shape[:2], -1), layer.out, x)
    hidden = linear.product(normalize(x, layer.norm2, shape.eps), layer.up)
    return linear.product(activate(hidden, shape.kind), layer.down, x), key, value


# One token's step, in pieces: what lies between two products. Each piece is compiled apart, so that a product gets no
# work fused into it that would be done again for every row of a weight, and attention spreads beyond its heads.


def begin(tokens: Tensor, position: Tensor, embedding: Tensor, positions: Tensor | None) -> Tensor:
    """Embedding (1, 1, hidden) of the token at ``position`` (1,) of tokens (1, capacity + 1)."""
    x = embedding[tokens[0, position]]
    if positions is not None:
        x = x + positions[position]
    return x[None]


def place(hidden: Tensor, shape: Shape, cache: Tensor, position: Tensor, cosine, sine) -> Tensor:
    """Write the token's key, rotated, and value at the position of the cache (2, KV heads, capacity, width).

    hidden: the qkv product (1, 1, N). cosine and sine are the tables (capacity, width), or None. Gives the query
    (heads, width), rotated here: in ``scores`` it would be rotated again for every position of the cache.
    """
    if cosine is not None:
        cosine, sine = cosine[position], sine[position]
    query, key, value = split_heads(hidden, shape, cosine, sine)
    cache[:, :, position] = torch.cat((key, value))
    return query.reshape(shape.heads, shape.width)


def scores(query: Tensor, cache: Tensor) -> Tensor:
    """Scaled products of a query (heads, width) with every key of the cache: (heads, capacity) float32."""
    _, kv_heads, capacity, width = cache.shape
    groups = query.reshape(kv_heads, -1, 1, width).float()
    return ((groups * cache[0, :, None].float()).sum(-1) * width**-0.5).reshape(-1, capacity)


def shares(scores: Tensor, position: Tensor) -> Tensor:
    """Softmax of scores (heads, capacity) up to the position, zero beyond it."""
    seen = torch.arange(scores.shape[1], device=scores.device) <= position
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def attend(shares: Tensor, cache: Tensor) -> Tensor:
    """Values of the cache weighted by shares (heads, capacity): (1, 1, heads × width) in the dtype of the cache."""
    _, kv_heads, capacity, _ = cache.shape
    groups = shares.reshape(kv_heads, -1, capacity, 1)
    return (groups * cache[1, :, None].float()).sum(2).to(cache.dtype).reshape(1, 1, -1)


def advance(logits: Tensor, tokens: Tensor, position: Tensor) -> None:
    """Write the greedy next token behind the position, and move the position there.

    The most likely token is sought in parts: over a vocabulary in one piece, the search runs on one multiprocessor.
    """
    row = logits.reshape(-1)
    parts = functional.pad(row, (0, -len(row) % PART), value=-torch.inf).reshape(-1, PART)
    best, where = parts.max(-1)
    part = best.argmax(0, keepdim=True)
    tokens[0, position + 1] = part * PART + where[part]
    position.add_(1)


class Pieces(NamedTuple):
    """The functions of a step between its products: as they stand, or compiled."""

    begin: Callable = begin
    normalize: Callable = normalize
    place: Callable = place
    scores: Callable = scores
    shares: Callable = shares
    attend: Callable = attend
    activate: Callable = activate
    advance: Callable = advance


def step(pieces: Pieces, weights: Decoder, caches: list[Tensor], tokens: Tensor, position: Tensor, tables) -> None:
    """One token through the model: reads the token at the position, writes the next one, moves the position on."""
    shape = weights.shape

    def normal_product(x, norm, weight):
        if norm.bias is None and linear.normalizes(x, weight):
            return linear.product(x, weight, gain=norm.weight, eps=shape.eps)
        return linear.product(pieces.normalize(x, norm, shape.eps), weight)

    x = pieces.begin(tokens, position, weights.embedding, weights.positions)
    for layer, cache in zip(weights.layers, caches, strict=True):
        hidden = normal_product(x, layer.norm1, layer.qkv)
        query = pieces.place(hidden, shape, cache, position, *tables)
        shares = pieces.shares(pieces.scores(query, cache), position)
        x = linear.product(pieces.attend(shares, cache), layer.out, x)
        hidden = normal_product(x, layer.norm2, layer.up)
        x = linear.product(pieces.activate(hidden, shape.kind), layer.down, x)
    pieces.advance(normal_product(x, weights.norm, weights.head), tokens, position)
