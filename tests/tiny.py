"""Tiny models for tests: GPT-2 and Llama with a byte-level tokenizer, built in a second, trained in a few.

    tiny.build(tmp_path / "model", "llama", trained=True)

The folder is like one that ``fetch`` makes, but for its manifest: config.json, model.safetensors and the tokenizer.
"""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from workflow.tradeoff.fetch.sources import byte_tokenizer

KINDS = ("gpt2", "llama", "llama-untied")
VOCAB = 320
CONTEXT = 512
# what every tiny config says of the byte-level tokenizer
SPECIAL = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
# written for these tests; the training text, so a trained model predicts it far better than chance
TEXT = """The bridge over the river was built by the people of two villages, who had no other road in winter.
In spring the water rose above the stones, and the old boat carried letters, bread and salt to the far side.
A small school stood near the market. Its teacher wrote the names of the children on the wall, one for each year.
When the railway came, the market moved to the station, and the bridge was left to the sheep and to the wind.
Today the wall is a monument, the school is a library, and the river is crossed by a road of steel and glass.
Visitors read the names aloud, count the years, and ask what the bread was made of; nobody knows the answer.
"""


def config(kind: str, *, vocab_size: int = VOCAB, context: int = CONTEXT, hidden: int = 64, layers: int = 2):
    """The transformers config of a tiny ``kind``: 4 heads; Llama has 2 of keys and values, and a head tied or not."""
    if kind == "gpt2":
        return GPT2Config(
            vocab_size=vocab_size, n_positions=context, n_embd=hidden, n_layer=layers, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **SPECIAL,
        )  # fmt: skip
    if kind in ("llama", "llama-untied"):
        return LlamaConfig(
            vocab_size=vocab_size, max_position_embeddings=context, hidden_size=hidden, intermediate_size=2 * hidden,
            num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
            tie_word_embeddings=kind == "llama", **SPECIAL,
        )  # fmt: skip
    if kind in OTHERS:
        name, given = OTHERS[kind]
        sizes = {"vocab_size": vocab_size, **given(hidden, layers, context)}
        return getattr(transformers, name)(**sizes, **SPECIAL)
    raise ValueError(f"kind {kind!r}: one of {KINDS} or {tuple(OTHERS)}")


def _llama_like(hidden, layers, context):
    return {
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": context, "tie_word_embeddings": False,
    }  # fmt: skip


def _gpt_like(hidden, layers, context):
    return {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": context}


def _experts(*sizes):
    return _llama_like(*sizes) | {"num_local_experts": 8, "num_experts_per_tok": 2}


# kind: transformers' config class, and its settings by hidden size, layers and context
OTHERS = {
    "mixtral": ("MixtralConfig", _experts),
    "granitemoe": ("GraniteMoeConfig", _experts),
    "gemma2": ("Gemma2Config", lambda *sizes: _llama_like(*sizes) | {
        "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": sizes[2] // 2, "attn_logit_softcapping": 5.0,
    }),
    "starcoder2": ("Starcoder2Config", _llama_like),
    "falcon": ("FalconConfig", lambda hidden, layers, context: {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4, "multi_query": True,
        "max_position_embeddings": context,
    }),
    "bigcode": ("GPTBigCodeConfig", lambda *sizes: _gpt_like(*sizes) | {"multi_query": True}),
    "gptj": ("GPTJConfig", lambda *sizes: _gpt_like(*sizes) | {"rotary_dim": 8}),
    "codegen": ("CodeGenConfig", lambda *sizes: _gpt_like(*sizes) | {"rotary_dim": 8}),
    "gptneo": ("GPTNeoConfig", lambda hidden, layers, context: {
        "hidden_size": hidden, "num_layers": layers, "num_heads": 4, "max_position_embeddings": context,
        "attention_types": [[["global", "local"], layers // 2]], "window_size": context // 4,
    }),
    "xglm": ("XGLMConfig", lambda hidden, layers, context: {
        "d_model": hidden, "ffn_dim": 2 * hidden, "num_layers": layers, "attention_heads": 4,
        "max_position_embeddings": context,
    }),
}  # fmt: skip


def build(
    folder: Path | str, kind: str = "gpt2", *, seed: int = 0, trained: bool = False, settings=None, **sizes
) -> Path:
    """Write a float32 model of ``kind`` into ``folder`` and return it; ``sizes`` go to ``config``.

    settings: a config to take instead.
    """
    return write(Path(folder), settings or config(kind, **sizes), seed=seed, steps=150 if trained else 0)


def write(folder: Path, settings, *, seed: int = 0, steps: int = 0, context: int | None = None) -> Path:
    """Write a float32 model of the transformers config ``settings`` into ``folder``, trained for ``steps``.

    context: of the tokenizer and the training windows, where the model's own is too long or not bounded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = context or settings.max_position_embeddings
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
        if steps:
            train(model, context, steps)
    model.eval().save_pretrained(folder)
    byte_tokenizer.save(folder, vocab_size=settings.vocab_size, context=context)
    return folder


def with_vocabulary(folder: Path, template: str | None = None, trained: bool = False) -> Path:
    """A tiny Llama with GPT-2's way of splitting, trained merges and a special token; template: of its chat."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=310, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, "3 33 333 3333 " * 9], trainer)
    settings = config("llama")
    settings.bos_token_id = settings.eos_token_id = settings.pad_token_id = tokenizer.token_to_id("<|end|>")
    write(folder, settings)
    if trained:
        model = AutoModelForCausalLM.from_pretrained(folder)
        train(model, 64, ids=tokenizer.encode(TEXT).ids)
        model.eval().save_pretrained(folder)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    made.chat_template = template
    made.save_pretrained(folder)
    return folder


def train(model: torch.nn.Module, context: int, steps: int = 150, ids: list[int] | None = None) -> float:
    """Train on windows of TEXT that fill the context; the last loss, in nats a token (chance is ln 320 = 5.8).

    ids: of TEXT's tokens; without, its bytes.
    """
    text = torch.tensor(ids or list(TEXT.encode()))
    text = text.repeat(2 + context // len(text))
    starts = torch.randint(len(text) - context, (steps,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for start in starts:
        ids = text[start : start + context]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return loss.item()
