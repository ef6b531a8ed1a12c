"""A .gguf file into float32 safetensors and a tokenizer: weights by transformers' GGUF reader."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.fetch import facts
from workflow.tradeoff.fetch.sources import checkpoint
from workflow.tradeoff.gguf_text import DIGITS, PROBE, SPLITS

CONTROL, USER_DEFINED = 3, 4  # gguf's token types


def metadata(path: Path, what: str) -> dict:
    """The key-value pairs of a GGUF file; UserError when it is not one."""
    from gguf import GGUFReader  # within ``read_once``, the one that transformers asks too

    try:
        return {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{what} is not a whole GGUF file ({checkpoint.one_line(error)}): fetch or copy it again"
        ) from error


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Within, gguf reads a file, and lists an architecture's names, once: transformers asks 3 and 397 times."""
    import gguf

    from workflow.tradeoff.gguf_reader import Reader

    before = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = map(functools.cache, (Reader, gguf.get_tensor_name_map))
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


@read_once()
def convert(path: Path, folder: Path, *, dtype: str, what: str) -> dict:
    """Write the model and tokenizer of a GGUF file into ``folder`` as safetensors in ``dtype``; return its metadata.

    Raises UserError when transformers cannot read its architecture, it is no causal LM, or its tokenizer is unknown.
    """
    import torch
    from transformers import AutoConfig, GgufConfig

    pairs = metadata(path, what)
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        kind = pairs.get("general.architecture")
        raise UserError(
            f"transformers cannot read a GGUF file of {kind}, as {what} is: give a source with safetensors"
        ) from error
    causal = checkpoint.model_class(config, what)
    save_tokenizer(pairs, path, folder, what)
    width = torch.finfo(getattr(torch, dtype)).bits // 8
    files.check_disk(folder, width * facts.of_config(config)["parameters"], f"{what} as {dtype}")
    model, report = causal.from_pretrained(
        path.parent,
        config=config,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=getattr(torch, dtype),
        output_loading_info=True,
    )
    checkpoint.refuse_missing(report, what)
    # the weights are plain now; transformers takes them for GGUF blocks still, and would not save them
    model.hf_quantizer = None
    model.config.quantization_config = None
    model.save_pretrained(folder)
    return pairs


def save_tokenizer(pairs: dict, path: Path, folder: Path, what: str) -> None:
    """Write the tokenizer that the file's metadata describes.

    Byte-level BPE (tokenizer.ggml.model = gpt2) is built here: transformers chooses the converter by the model's
    architecture instead, and so reads a Llama's byte-level vocabulary as SentencePiece, slowly, with a BOS that
    tokenizer.ggml.add_bos_token forbids and without the split that tokenizer.ggml.pre names.
    """
    if pairs.get("tokenizer.ggml.model") == "gpt2":
        tokenizer = byte_level(pairs, what)
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        tokenizer.add_bos_token = pairs.get("tokenizer.ggml.add_bos_token", True)
    ids = tokenizer(PROBE).input_ids
    if tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) != PROBE:
        raise UserError(
            f"the tokenizer in {what} does not give a text back unchanged: give a source with tokenizer.json"
        )
    tokenizer.save_pretrained(folder)


def byte_level(pairs: dict, what: str):
    """The byte-level BPE tokenizer of GGUF metadata; UserError when its way of splitting text is unknown."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    name = pairs.get("tokenizer.ggml.pre")
    if name not in SPLITS:
        raise UserError(
            f"tokenizer.ggml.pre {name!r} of {what} is none of {', '.join(SPLITS)}: give a source with tokenizer.json"
        )
    tokens = pairs["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in pairs["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # as Llama 3's own tokenizer.json says
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=name == "llama-bpe"))
    built_in = pre_tokenizers.ByteLevel(add_prefix_space=pairs.get("tokenizer.ggml.add_space_prefix", False))
    if SPLITS[name] is None:
        tokenizer.pre_tokenizer = built_in
    elif SPLITS[name] == DIGITS:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), built_in])
    else:
        built_in.use_regex = False
        split = pre_tokenizers.Split(Regex(SPLITS[name]), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, built_in])
    tokenizer.decoder = decoders.ByteLevel()
    special = {
        f"{kind}_token": tokens[pairs[f"tokenizer.ggml.{key}_token_id"]]
        for kind, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in pairs
    }
    for token, kind in zip(tokens, pairs["tokenizer.ggml.token_type"], strict=True):
        if kind in (CONTROL, USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    if pairs.get("tokenizer.ggml.add_bos_token", False):
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=pairs[f"{pairs['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
        **special,
    )
    fast.chat_template = pairs.get("tokenizer.chat_template")
    return fast
