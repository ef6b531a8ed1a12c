"""A byte-level tokenizer made by code, for models that have no vocabulary of their own."""

from pathlib import Path

from workflow.tradeoff.errors import UserError

SIZE = 257  # one token per byte, and the end of text
END = "<|endoftext|>"


def save(folder: Path, *, vocab_size: int, context: int) -> None:
    """Write the tokenizer of a model with ``vocab_size`` >= 257 into ``folder``: ids 0-255 are bytes, 256 ends a text.

    context: the longest sequence, in tokens. It adds no token of its own; END is its BOS, EOS and padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    if vocab_size < SIZE:
        raise UserError(f"vocab_size is {vocab_size}, too few for one token per byte: give at least {SIZE}")
    vocabulary = {symbol: byte for byte, symbol in bytes_to_unicode().items()} | {END: SIZE - 1}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
