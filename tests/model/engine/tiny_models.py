"""Random models of many families, small enough to build in a test.

Windows are shorter than the prompts that the tests send, and weights are spread widely enough for
the likeliest token to stand clear of the next one.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 160
WINDOW = 8

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_WINDOWED = {"sliding_window": WINDOW}
_MIXED = {"sliding_window": WINDOW, "layer_types": _ALTERNATING}
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {**_MIXED, "use_sliding_window": True},
    "qwen3": {**_MIXED, "use_sliding_window": True, "head_dim": 16},
    "mistral": _WINDOWED,
    "gemma": {"head_dim": 16},
    "gemma2": {
        **_MIXED,
        "head_dim": 16,
        "attn_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 16,
    },
    "gemma3_text": {**_MIXED, "head_dim": 16, "query_pre_attn_scalar": 16},
    "phi": {},
    "phi3": _WINDOWED,
    "gpt_neox": {},
    "gpt2": {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 128},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "smollm3": {"no_rope_layers": [1, 0, 1, 0]},
    "granite": {
        "attention_multiplier": 0.1,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
    },
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmo2": {},
    "olmo3": _MIXED,
    "cohere": {"logit_scale": 0.5},
    "cohere2": _MIXED,
    "starcoder2": _WINDOWED,
    "glm4": {"head_dim": 16},
    "exaone4": _MIXED,
    "mixtral": {**_WINDOWED, "num_local_experts": 4},
    "qwen2_moe": {**_MOE, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**_MOE, "head_dim": 16},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    },
    "gpt_oss": {**_MIXED, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
}


def make_model(family: str, **changes: Any) -> PreTrainedModel:
    values = {**_SIZES, **FAMILIES.get(family, {}), **changes}
    known = AutoConfig.for_model(family)
    config = type(known)(**{k: v for k, v in values.items() if hasattr(known, k)})
    torch.manual_seed(7)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return model


def save_model(folder: Path, family: str, **changes: Any) -> Path:
    make_model(family, **changes).save_pretrained(folder)
    return folder
