"""A .gguf file into float32 safetensors and a tokenizer: weights by transformers' GGUF reader."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from workflow.tradeoff import files
from workflow.tradeoff.errors import UserError, first_line
from workflow.tradeoff.fetch import facts
from workflow.tradeoff.fetch.sources import checkpoint, generation, gguf_settings, kinds
from workflow.tradeoff.fetch.sources.keys import scratch
from workflow.tradeoff.gguf_text import DIGITS, PROBE, SPLITS

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
CONTROL, USER_DEFINED = 3, 4  # gguf's token types


def parts(path: Path, what: str) -> list[Path]:
    """The files of a GGUF model, of which ``path`` is the only or the first; UserError when another part is missing."""
    found = PART.fullmatch(path.name)
    if not found:
        return [path]
    stem, number, count = found[1], int(found[2]), int(found[3])
    names = [f"{stem}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1)]
    if number != 1:
        raise UserError(
            f"{what} is part {number} of {count}: name the first part, {names[0]}, with the others beside it"
        )
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise UserError(
            f"{what} is the first of {count} parts, and {missing[0]} is not beside it: put all parts into one folder"
        )
    return [path.parent / name for name in names]


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Within, gguf reads a file with its further parts, and lists an architecture's names, once.

    transformers asks for the first 3 and for the second 397 times, and knows nothing of parts.
    """
    import gguf

    from workflow.tradeoff.gguf_reader import Reader

    before = gguf.GGUFReader, gguf.get_tensor_name_map

    def whole(path):
        first, *others = parts(Path(path), Path(path).name)
        reader = Reader(first)
        for other in others:
            reader.tensors.extend(Reader(other).tensors)
        return reader

    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(whole), functools.cache(before[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


def stored(files: Sequence[Path]) -> dict:
    """What a GGUF model's matrices lie in: ``bits_per_weight``, scales included, and the share of each ggml type."""
    from workflow.tradeoff.gguf_reader import Reader

    weights: Counter = Counter()
    size = 0
    for tensor in (tensor for file in files for tensor in Reader(file).tensors if len(tensor.shape) > 1):
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
        size += int(tensor.n_bytes)
    total = weights.total()
    shares = {kind: count / total for kind, count in weights.most_common()}
    return {"bits_per_weight": 8 * size / total, "types": shares}


@contextlib.contextmanager
def alone(path: Path, folder: Path, what: str) -> Iterator[Path]:
    """Links to the file and its further parts in a folder where nothing else is: an adapter beside them counts not."""
    with scratch(folder / ".gguf") as links:
        for part in parts(path, what):
            (links / part.name).symlink_to(part.resolve())
        yield links / path.name


@read_once()
def convert(source: Path, folder: Path, *, dtype: str, what: str) -> dict:
    """Write the model and tokenizer of a GGUF file into ``folder`` as safetensors in ``dtype``; return its metadata.

    Raises UserError when transformers cannot read its architecture, it is no causal LM, its tokenizer is unknown, or
    it states something that the converted model would lack.
    """
    with alone(source, folder, what) as path:
        return _convert(path, folder, dtype, what)


def _convert(path: Path, folder: Path, dtype: str, what: str) -> dict:
    import gguf
    import torch
    from transformers import AutoConfig, GgufConfig

    try:
        reader = gguf.GGUFReader(path)
        pairs = {key: field.contents() for key, field in reader.fields.items()}
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} is not a whole GGUF file ({first_line(error)}): fetch or copy it again") from error
    if (count := pairs.get("split.count", 0)) > len(parts(path, what)):
        raise UserError(
            f"{what} is one of {count} parts that a name like {path.stem}-00001-of-{count:05d}.gguf would tell of: "
            "give all parts their own names again, in one folder"
        )
    kind = pairs.get("general.architecture")
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"transformers cannot read a GGUF file of {kind}, as {what} is ({first_line(error)}): "
            "give a source with safetensors"
        ) from error
    causal = kinds.model_class(config, what)
    factors = [tensor.data for tensor in reader.tensors if tensor.name == gguf_settings.ROPE_TENSOR]
    gguf_settings.carry(pairs, factors[0] if factors else None, config, what)
    known = facts.of_config(config)
    with torch.device("meta"):
        left = gguf_settings.unread([tensor.name for tensor in reader.tensors], kind, causal(config))
    if left:
        raise UserError(
            f"{what} has the tensor {left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''}, which its "
            "conversion would drop: give a source with safetensors"
        )
    save_tokenizer(pairs, path, folder, what)
    width = torch.finfo(getattr(torch, dtype)).bits // 8
    files.check_disk(folder, width * known["parameters"], f"{what} as {dtype}")
    try:
        model, report = causal.from_pretrained(
            path.parent,
            config=config,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    except Exception as error:  # a library refuses a checkpoint in whatever way it likes
        raise UserError(
            f"transformers cannot read the weights of {what} ({first_line(error)}): give a source with safetensors"
        ) from error
    checkpoint.refuse_missing(report, what)
    # the weights are plain now; transformers takes them for GGUF blocks still, and would not save them
    model.hf_quantizer = None
    model.config.quantization_config = None
    kinds.refuse_foresight(model, what)
    # the weights are plain now; transformers takes them for GGUF blocks still, and would not save them
    model.hf_quantizer = None
    model.config.quantization_config = None
    checkpoint.save(model, folder, what)
    generation.neutral(path.parent, folder, config.to_dict(), what)
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

        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        except Exception as error:
            raise UserError(
                f"transformers cannot read the tokenizer in {what} ({first_line(error)}): "
                "give a source with tokenizer.json"
            ) from error
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
