"""Greedy text for the study's prompts, and how far it agrees with the baseline's."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from workflow.tradeoff import files
from workflow.tradeoff.engines.base import Engine
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate.conventions import Vocabulary
from workflow.tradeoff.evaluate.prompts import PROMPTS

PLACE = "the prompt itself"  # where a template puts what a user says


def greedy(engine: Engine, ids: Sequence[int], new_tokens: int, stop: Collection[int]) -> list[int]:
    """The tokens that follow ``ids``: at most ``new_tokens``, the last one a stop token if one came earlier."""
    if new_tokens < 1:
        return []
    token = engine.prefill(torch.tensor([ids], dtype=torch.int64))
    tokens = [token.item()]
    while len(tokens) < new_tokens and tokens[-1] not in stop:
        token = engine.decode(token)
        tokens.append(token.item())
    return tokens


def fitting(prompts: Sequence[list[int]], new_tokens: int, context: int) -> dict[int, list[int]]:
    """The prompts, by their place among PROMPTS, that leave room for at least one token of ``context``.

    The others cannot be asked of this model at all. UserError when fewer new tokens would do.
    """
    kept = {index: ids for index, ids in enumerate(prompts) if len(ids) < context}
    for ids in kept.values():
        check_fits(len(ids), new_tokens, context)
    return kept


def prompts(tokenizer, vocab: Vocabulary, chat: str) -> list[list[int]]:
    """Token ids of the study's prompts: as a user's turn where ``chat`` is auto and the tokenizer has a template.

    A model tuned for chat often ends a bare question at once; without a template the text is taken as it stands.
    """
    if chat == "auto" and tokenizer.chat_template:
        turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        return [tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for turn in turns]
    return [[*vocab.head, *vocab.encode(prompt)] for prompt in PROMPTS]


def prompting(tokenizer, bos: str, chat: bool, stop: Collection[int]) -> dict:
    """How a prompt was put, so that whoever serves the model puts it the same way.

    ``head``: token ids before it; ``before``, ``after``: text around it, of the chat template; ``stop``: ids that end
    an answer. bos: ``always`` or ``never``.
    """
    before = after = ""
    head = [tokenizer.bos_token_id] if bos == "always" and not chat else []
    if chat:
        turn = [{"role": "user", "content": PLACE}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        before, _, after = text.partition(PLACE)
    return {"head": head, "before": before, "after": after, "stop": sorted(stop)}


def check_fits(prompt_tokens: int, new_tokens: int, context: int) -> None:
    """UserError when a prompt and its new tokens do not fit the model's context."""
    if prompt_tokens + new_tokens > context:
        raise UserError(
            f"evaluate.generate_tokens: {prompt_tokens} prompt tokens and {new_tokens} new ones exceed the model's "
            f"context of {context} tokens: lower it"
        )


def first_difference(tokens: Sequence[int], others: Sequence[int]) -> int | None:
    """Index of the first token that differs (the shorter one's length when it is a prefix); None when equal."""
    for index, (token, other) in enumerate(zip(tokens, others, strict=False)):
        if token != other:
            return index
    return None if len(tokens) == len(others) else min(len(tokens), len(others))


def stop_tokens(config, tokenizer, model: Path) -> set[int]:
    """Every id that ends a text by the model's config, its tokenizer, or generation_config.json in its folder."""
    stored = model / "generation_config.json"
    declared = [config.eos_token_id, tokenizer.eos_token_id]
    if stored.is_file():
        declared.append(files.read_json(stored).get("eos_token_id"))
    tokens = itertools.chain.from_iterable(ids if isinstance(ids, list) else [ids] for ids in declared)
    return {token for token in tokens if token is not None}
