"""The vocabulary of a GGUF file, so that ``llama-server`` can serve text from it: written, then tried.

The engine itself takes token ids and needs none. A vocabulary that does not split a probe as the model's own tokenizer
does is left out, and the file says so: text of other tokens than those that were measured would be worse than none.
"""

import ctypes
import functools
import json
from pathlib import Path

from gguf import GGUFValueType, GGUFWriter, SpecialVocab, TokenType

from workflow.tradeoff import gguf_text
from workflow.tradeoff.engines import llamacpp_library as library
from workflow.tradeoff.gguf_reader import Reader

# what tells splits of text apart: digits, contractions in both cases, runs of blanks and newlines, other scripts
PROBES = (
    gguf_text.PROBE,
    "I'll say it's 3 33 333 3333 times; WE'LL see. \n\n \n\t\t x  y   z\r\n --- ...!!?? 1314151天～ Ελλάδα\n",
)


def add(writer: GGUFWriter, model: Path, size: int, scratch: Path) -> dict:
    """Write the tokenizer's keys; ``{"vocabulary": name}`` or, without one, ``{"vocabulary": None, "why": reason}``.

    Of a model that was itself made from a GGUF file, that file's keys are taken over. size: rows of the embedding.
    """
    reasons = []
    for name, write in _candidates(model, size):
        reason = _differs(write, model, writer.arch, size, scratch)
        if reason is None:
            write(writer)
            return {"vocabulary": name}
        reasons.append(f"{name}: {reason}")
    without(writer)
    return {"vocabulary": None, "why": "; ".join(reasons) or "the tokenizer is of no kind that is written here"}


def without(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("no_vocab")


def _candidates(model: Path, size: int):
    """(name, function that writes its keys into a writer)."""
    source = model / gguf_text.KEPT
    if source.is_file():
        yield "of the source file", lambda writer: copy(source, writer)
        return
    described = json.loads((model / "tokenizer.json").read_text())
    if described["model"]["type"] == "BPE" and described["model"].get("byte_fallback"):
        yield "llama", lambda writer: sentences(writer, model, size)
    elif described["model"]["type"] == "BPE" and described["model"]["merges"]:
        for split in splits(described["pre_tokenizer"]):
            yield split, lambda writer, split=split: byte_level(writer, model, size, split)


def splits(pre_tokenizer: dict | None) -> list[str]:
    """llama.cpp's names for a way of splitting text, by what tokenizer.json says of it."""
    steps = (pre_tokenizer or {}).get("pretokenizers") or [pre_tokenizer or {}]
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if any(step.get("type") == "Digits" and step.get("individual_digits") for step in steps):
        patterns.append(gguf_text.DIGITS)
    if not patterns and any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps):
        patterns.append(None)
    return [name for name, pattern in gguf_text.SPLITS.items() if pattern in patterns]


@functools.cache
def read(source: Path) -> dict:
    return Reader(source).fields


def copy(source: Path, writer: GGUFWriter) -> None:
    """Every key of the source file's tokenizer, as it stands there."""
    for key, field in read(source).items():
        if key.startswith("tokenizer."):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type=inner)


def byte_level(writer: GGUFWriter, model: Path, size: int, split: str) -> None:
    tokens, kinds = _tokens(model, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    SpecialVocab(model, load_merges=True, n_vocab=size).add_to_gguf(writer, quiet=True)


def sentences(writer: GGUFWriter, model: Path, size: int) -> None:
    """SentencePiece's BPE, whose merges llama.cpp ranks by score: a later token was merged later."""
    tokens, kinds = _tokens(model, size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(size)])
    writer.add_token_types(kinds)
    SpecialVocab(model, n_vocab=size).add_to_gguf(writer, quiet=True)


def _tokens(model: Path, size: int) -> tuple[list[str], list[int]]:
    """The token of every row of the embedding, and its type; rows that no token has are marked unused."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    named = {index: token for token, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for index in range(size):
        token = named.get(index, f"[PAD{index}]")
        if index not in named:
            kind = TokenType.UNUSED
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        elif len(token) == 6 and token.startswith("<0x"):
            kind = TokenType.BYTE
        else:
            kind = TokenType.NORMAL
        tokens.append(token)
        kinds.append(kind)
    return tokens, kinds


def _differs(write, model: Path, arch: str, size: int, scratch: Path) -> str | None:
    """Why llama.cpp does not split the probes as the model's tokenizer does, with what ``write`` writes; else None."""
    from transformers import AutoTokenizer

    path = scratch / "vocabulary.gguf"
    writer = GGUFWriter(path, arch)
    try:
        write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
    except (ValueError, KeyError) as error:
        return f"not written ({error})"
    finally:
        writer.close()
    lib = library.open_library()
    wanted = lib.llama_model_default_params()
    wanted.vocab_only = True
    loaded = lib.llama_model_load_from_file(str(path).encode(), wanted)
    path.unlink()
    if not loaded:
        return f"not loaded ({library.last_words()})"
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    try:
        vocabulary = lib.llama_model_get_vocab(loaded)
        if lib.llama_vocab_n_tokens(vocabulary) != size:
            return f"{lib.llama_vocab_n_tokens(vocabulary)} tokens, and the model has {size}"
        for text in PROBES:
            if tokenize(lib, vocabulary, text) != tokenizer(text, add_special_tokens=False).input_ids:
                return f"it splits {text[:24]!r}… otherwise than the model's tokenizer"
    finally:
        lib.llama_model_free(loaded)
    return None


def tokenize(lib, vocabulary, text: str) -> list[int]:
    """llama.cpp's token ids of a text, without special tokens before or after it."""
    encoded = text.encode()
    room = (ctypes.c_int32 * (len(encoded) + 8))()
    count = lib.llama_tokenize(vocabulary, encoded, len(encoded), room, len(room), False, True)
    return list(room[:count])
