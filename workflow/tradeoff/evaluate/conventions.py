"""Conventions: how a corpus is cut for perplexity. Pure functions: rows in, windows of token ids out.

Perplexities of one model on one text differ by tens of percent with the cut alone, so each cut has a name:

``windows-N``
    The GPTQ papers' and most published tables' way: rows joined by a blank line, tokenized once, cut into
    windows of N tokens that do not overlap (a rest shorter than N is dropped); all but a window's first token
    are scored.
``strided-N-S``
    The Hugging Face guide's way: the same text, windows of N tokens that advance by S; in each only the tokens
    that no earlier window scored. Every token but the very first is scored once.
``study``
    The study's: the first 50 rows whose stripped length exceeds 50 characters, each alone, cut to 512 tokens,
    never a BOS. It is not shortened by ``max_tokens``: its figure is defined by its 50 rows.
``word``, ``word-N``
    lm-evaluation-harness's ``wikitext`` task: each document alone, through its detokenizer, rolling windows
    with one token of context, every token scored, the harness's prefix token before the first. The perplexity
    is per word of the document before detokenization. N is the window (the harness's ``max_length``); without
    it, the model's whole context.
``llama.cpp``
    Its perplexity tool: the raw text, windows of 512, the second half of each scored (255 tokens).

BOS: ``windows`` and ``strided`` put it once, at the head of the text (as tokenizing the joined text does);
``llama.cpp`` puts it in place of each window's first token, as that tool does; ``word`` puts it at the head of
each document, where the harness scores it as a token; ``study`` never.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from workflow.tradeoff import architecture
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate import detokenizer, prose
from workflow.tradeoff.words import convention

STUDY_ROWS, STUDY_CHARACTERS, STUDY_TOKENS = 50, 50, 512
LLAMA_CPP_TOKENS = 512
CHARACTERS = 5  # of a token, to begin with
PIECE = 1 << 12  # characters of a row that are taken at once
BLANK_LINE, RAW, ROWS, PAGES = '"\\n\\n".join(rows)', "raw text", "each row alone", "each document alone, detokenized"


@dataclass(frozen=True)
class Window:
    """``tokens`` (T,) int64: all but the last are the input; the last ``scored`` of them are the targets.

    So the logits of input positions T - 1 - scored and on predict ``targets``. ``block``: the unit of resampling.
    """

    tokens: np.ndarray
    scored: int
    block: int

    @property
    def inputs(self) -> np.ndarray:
        return self.tokens[:-1]

    @property
    def targets(self) -> np.ndarray:
        return self.tokens[len(self.tokens) - self.scored :]


@dataclass(frozen=True)
class Plan:
    """What a convention scores: windows in order, and what a reader of the figure must know.

    bos: ``always`` or ``never``. join: how rows became text. length: tokens of a full window.
    facts: what only this convention has (``words`` of ``word``; ``row_tokens`` of ``study``).
    """

    convention: str
    windows: list[Window]
    bos: str
    join: str
    length: int
    facts: dict = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return sum(window.scored for window in self.windows)


@dataclass(frozen=True)
class Vocabulary:
    """What the cutting needs of a tokenizer.

    encode: text to ids without special tokens. bos: the id put before text, None for never.
    prefix: the id that lm-eval conditions a document's first token on: the BOS, or the EOS where there is none.
    """

    encode: Callable[[str], Sequence[int]]
    bos: int | None
    prefix: int | None

    @property
    def decision(self) -> str:
        return "never" if self.bos is None else "always"

    @property
    def head(self) -> list[int]:
        return [] if self.bos is None else [self.bos]


def vocabulary(tokenizer, bos: str) -> Vocabulary:
    """The ``Vocabulary`` of a transformers tokenizer under ``bos`` always, never or auto.

    auto asks the tokenizer itself: does it begin an encoded text with its BOS? (What ``add_bos_token`` declares is
    ignored by several tokenizer classes; what encoding does is what every other tool gets.)
    Raises UserError for another word, or for ``always`` without a BOS token.
    """
    if bos not in ("always", "never", "auto"):
        raise UserError(f"evaluate.bos: {bos!r} is not always, never or auto")
    token = tokenizer.bos_token_id
    if bos == "auto":
        ids = tokenizer.encode("a")
        bos = "always" if token is not None and ids[:1] == [token] else "never"
    if bos == "always" and token is None:
        raise UserError("evaluate.bos: always, but the model's tokenizer has no BOS token: use auto or never")
    encode = cache(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False, verbose=False)))
    prefix = tokenizer.eos_token_id if token is None else token
    return Vocabulary(encode, token if bos == "always" else None, prefix)


def plan(
    name: str,
    rows: Iterable[str],
    documents: Sequence[int],
    vocab: Vocabulary,
    context: int,
    max_tokens: int | None = None,
) -> Plan:
    """Cut a corpus under the convention ``name``.

    rows: as in the corpus file. documents: index of each document's first row. context: the model's longest
    sequence. max_tokens: stop after the window (``word``: the row) with which so many tokens are scored.
    Raises UserError for an unknown name, a window beyond the context, or a corpus shorter than one window.
    """
    match = convention(name)
    if name == "word" and context >= architecture.UNBOUNDED:
        raise UserError(
            "evaluate.conventions: 'word' takes the model's whole context, and this model states no bound: "
            "name a window, as in word-2048"
        )
    if match["word"] or name == "word":
        result = _word(name, rows, documents, vocab, min(int(match["word"] or context), context), max_tokens)
    elif name == "study":
        result = _study(rows, vocab, context)
    elif name == "llama.cpp":
        wanted = max_tokens and (max_tokens // (LLAMA_CPP_TOKENS // 2 - 1) + 1) * LLAMA_CPP_TOKENS
        ids = [*vocab.head, *_beginning(prose.raw_pieces(rows), vocab.encode, wanted)]
        windows = _llama_cpp(ids, vocab.bos)
        result = Plan(name, _first(windows, max_tokens), vocab.decision, RAW, LLAMA_CPP_TOKENS)
    else:
        length = int(match["windows"] or match["length"])
        step = int(match["stride"] or length)
        wanted = max_tokens and length + (max_tokens // min(step, length - 1) + 1) * step
        ids = [*vocab.head, *_beginning(prose.between(rows, "\n\n"), vocab.encode, wanted)]
        windows = _strided(ids, length, int(match["stride"])) if match["stride"] else _windows(ids, length)
        result = Plan(name, _first(windows, max_tokens), vocab.decision, BLANK_LINE, length)
    if not result.windows:
        raise UserError(
            f"corpus: shorter than one window of {result.length} tokens, as evaluate.conventions {name!r} needs: "
            "give a longer corpus or a smaller window"
        )
    if result.length > context:
        raise UserError(f"evaluate.conventions: {name!r} is longer than the model's context of {context} tokens")
    return result


def _first(windows: Iterator[Window], max_tokens: int | None) -> list[Window]:
    """Whole windows until ``max_tokens`` are scored, so the last one may pass it."""
    taken, scored = [], 0
    for window in windows:
        taken.append(window)
        scored += window.scored
        if max_tokens and scored >= max_tokens:
            break
    return taken


def _beginning(pieces: Iterable[str], encode: Callable, wanted: int | None) -> Sequence[int]:
    """Ids of the text that ``pieces`` make up; if ``wanted``, only its first ones, at least as many where it has them.

    A token at the end of a part may be another one in the whole. So parts grow until the wanted tokens of one are those
    of the next, which is twice as long.
    """
    if not wanted:
        return encode("".join(pieces))
    rest = (piece[start : start + PIECE] for piece in pieces for start in range(0, len(piece), PIECE))
    text, size, before = [], 0, None
    aim = CHARACTERS * wanted
    while True:
        whole = True
        for piece in rest:
            text.append(piece)
            size += len(piece)
            if size >= aim:
                whole = False
                break
        ids = encode("".join(text))
        if whole or (len(ids) >= wanted and before == ids[:wanted]):
            return ids[:wanted] if not whole else ids
        before, aim = ids[:wanted], 2 * size


def _array(ids: Sequence[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int64)


def _windows(ids: list[int], length: int) -> Iterator[Window]:
    for block, start in enumerate(range(0, len(ids) - length + 1, length)):
        yield Window(_array(ids[start : start + length]), length - 1, block)


def _strided(ids: list[int], length: int, stride: int) -> Iterator[Window]:
    if len(ids) < length:
        return
    yield Window(_array(ids[:length]), length - 1, 0)
    end = length
    for block, start in enumerate(range(stride, len(ids), stride), start=1):
        if end == len(ids):
            return
        stop = min(start + length, len(ids))
        yield Window(_array(ids[start:stop]), stop - end, block)
        end = stop


def _llama_cpp(ids: list[int], bos: int | None) -> Iterator[Window]:
    length = LLAMA_CPP_TOKENS
    for window in _windows(ids, length):
        tokens = window.tokens
        if bos is not None:
            tokens[0] = bos
        yield Window(tokens, length - length // 2 - 1, window.block)


def _study(rows: Iterable[str], vocab: Vocabulary, context: int) -> Plan:
    chosen = itertools.islice((row for row in rows if len(row.strip()) > STUDY_CHARACTERS), STUDY_ROWS)
    length = min(STUDY_TOKENS, context)
    encoded = [_beginning([row], vocab.encode, length)[:length] for row in chosen]
    # a row of one token predicts nothing, yet the study's weights would count it
    windows = [Window(_array(ids), len(ids) - 1, block) for block, ids in enumerate(encoded) if len(ids) > 1]
    return Plan("study", windows, "never", ROWS, length, {"row_tokens": sum(len(window.tokens) for window in windows)})


def _word(
    name: str, rows: Iterable[str], documents: Sequence[int], vocab: Vocabulary, length: int, max_tokens: int | None
) -> Plan:
    if vocab.prefix is None:
        raise UserError(f"evaluate.conventions: {name!r} needs a BOS or EOS token and the model's tokenizer has none")
    windows, words, scored = [], 0, 0
    for block, lines in enumerate(prose.pages(rows, documents)):
        if max_tokens:
            lines = _shortest(lines, vocab, max_tokens - scored)
        page = "\n".join(lines)
        ids = [*vocab.head, *vocab.encode(detokenizer.detokenize(page))]
        windows += [Window(_array(tokens), count, block) for tokens, count in _rolling(ids, vocab.prefix, length)]
        words += detokenizer.words(page)
        scored += len(ids)
        if max_tokens and scored >= max_tokens:
            break
    return Plan(name, windows, vocab.decision, PAGES, length, {"words": words})


def _shortest(lines: list[str], vocab: Vocabulary, enough: int) -> list[str]:
    """The first lines of a page that have ``enough`` tokens: a page may be longer than all that is asked for."""
    total = 0
    for count, line in enumerate(lines, start=1):
        total += len(vocab.encode(detokenizer.detokenize(line)))
        if total >= enough:
            return lines[:count]
    return lines


def _rolling(ids: list[int], prefix: int, length: int) -> Iterator[tuple[list[int], int]]:
    """(tokens, scored) of a document's windows: ``length`` inputs each, the last one reaching back to be full.

    The windows of lm-eval's ``get_rolling_token_windows`` with context_len 1.
    """
    stream = [prefix, *ids]
    for start in range(0, len(ids), length):
        stop = min(start + length, len(ids))
        yield stream[max(0, stop - length) : stop + 1], stop - start
