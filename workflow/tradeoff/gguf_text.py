"""What a GGUF file's metadata says of text: names for ways of splitting it. Read when fetched, written when made."""

KEPT = "source.gguf"  # the file itself, beside what was made of it: engines that run it, and its own tokenizer's keys
PROBE = "The capital of France is Paris.\n\n  12 kg × 3.5 = 42; don't!\tÉté, 東京, naïve 🙂\n"

# What splits text before byte-level BPE, by the name in tokenizer.ggml.pre: the pattern in that model's tokenizer.json.
# None: GPT-2's, which `tokenizers` has built in. DIGITS: each digit alone, then GPT-2's
DIGITS = "digits"
TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    "gpt-2": None,
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "llama-bpe": TIKTOKEN.format(digits=r"\p{N}{1,3}"),
    "qwen2": TIKTOKEN.format(digits=r"\p{N}"),
}
