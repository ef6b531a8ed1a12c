"""Architectures of transformers, as tiny models with random weights: what docs/architectures.md and docs/export.md try.

build(tmp_path / "model", "Qwen3")
"""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from workflow.tradeoff.fetch.sources import byte_tokenizer

CONTEXT, WINDOW = 512, 16
SMALL = {
    "vocab_size": tiny.VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, **tiny.SPECIAL,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
GPT = {"vocab_size": tiny.VOCAB, "n_positions": CONTEXT, "n_embd": 64, "n_layer": 2, "n_head": 4, **tiny.SPECIAL}
# name in the tables: model_type and settings
MODELS = {
    "GPT-2": ("gpt2", GPT),
    "GPT-Neo": ("gpt_neo", {
        "vocab_size": tiny.VOCAB, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "window_size": WINDOW,
        "max_position_embeddings": CONTEXT, "attention_types": [[["global", "local"], 1]], **tiny.SPECIAL,
    }),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 8}),
    "GPT-NeoX": ("gpt_neox", SMALL),
    "GPT-BigCode": ("gpt_bigcode", {**GPT, "multi_query": True}),
    "CodeGen": ("codegen", {**GPT, "rotary_dim": 8}),
    "OPT": ("opt", {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    "BLOOM": ("bloom", {"vocab_size": tiny.VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4, **tiny.SPECIAL}),
    "MPT": ("mpt", {
        "vocab_size": tiny.VOCAB, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT, **tiny.SPECIAL,
    }),
    "Falcon": ("falcon", SMALL),
    "Llama": ("llama", SMALL),
    "Mistral, window of 16": ("mistral", {**SMALL, "sliding_window": WINDOW}),
    "Mixtral": ("mixtral", {**SMALL, **EXPERTS}),
    "Qwen2": ("qwen2", SMALL),
    "Qwen3": ("qwen3", {**SMALL, "head_dim": 16}),
    "Qwen3-MoE": ("qwen3_moe", {**SMALL, **EXPERTS, "head_dim": 16}),
    "Qwen3-Next": ("qwen3_next", {
        **SMALL, **EXPERTS, "head_dim": 16, "shared_expert_intermediate_size": 64, "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    }),
    "Gemma 2": ("gemma2", {**SMALL, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}),
    "Gemma 3": ("gemma3_text", {**SMALL, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}),
    "Phi-3": ("phi3", {**SMALL, "original_max_position_embeddings": CONTEXT}),
    "Phi-3, longrope": ("phi3", {**SMALL, "rope_scaling": LONGROPE, "original_max_position_embeddings": 64}),
    "StableLM": ("stablelm", SMALL),
    "StarCoder2": ("starcoder2", SMALL),
    "OLMo2": ("olmo2", SMALL),
    "Granite": ("granite", {**SMALL, "embedding_multiplier": 2.0, "logits_scaling": 2.0, "residual_multiplier": 0.5}),
    "GraniteMoE": ("granitemoe", {**SMALL, **EXPERTS}),
    "Cohere": ("cohere", SMALL),
    "SmolLM3": ("smollm3", SMALL),
    "DeepSeek-V3": ("deepseek_v3", {
        **SMALL, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1, "moe_intermediate_size": 64, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
    }),
    "gpt-oss": ("gpt_oss", {**SMALL, **EXPERTS, "head_dim": 16, "sliding_window": WINDOW}),
    "Ministral 3": ("ministral3", {**SMALL, "head_dim": 16, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
    }}),
    "Gemma 4": ("gemma4_text", {
        **SMALL, "head_dim": 16, "global_head_dim": 16, "sliding_window": WINDOW, "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": tiny.VOCAB, "layer_types": ["sliding_attention", "full_attention"],
    }),
    "Mamba": ("mamba", {
        "vocab_size": tiny.VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, **tiny.SPECIAL,
    }),
}  # fmt: skip


def network(name: str):
    """The architecture ``name`` with seeded float32 weights, as transformers runs it by default."""
    kind, settings = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), dtype=torch.float32).eval()


def build(folder: Path, name: str) -> Path:
    """Write ``network(name)`` with a byte-level tokenizer into ``folder``; its matrices doubled, so that tokens differ.

    A freshly made model gives nearly the same loss whatever is wrong with it.
    """
    model = network(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2)
    model.save_pretrained(folder)
    byte_tokenizer.save(folder, vocab_size=tiny.VOCAB, context=CONTEXT)
    return folder
