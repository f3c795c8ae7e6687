"""Tiny random language models of every family, made with transformers and saved as it saves."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCAB = 300
CONTEXT = 64
SHARED: dict[str, Any] = {
    **{"vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4},
    **{"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
}
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75},
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.5, 2.5, 4.0],
}
GEMMA_TYPES = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
# name -> model_type, what differs from SHARED.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied, no grouping": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "llama, wide heads": ("llama", {"head_dim": 16}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}}),
    "mistral": ("mistral", {"head_dim": 8, "sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 untied": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3 tied": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "smollm3 untied": ("smollm3", {"tie_word_embeddings": False}),
    "gemma3": (
        "gemma3_text",
        {
            **{"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 7, "layer_types": GEMMA_TYPES},
            "final_logit_softcapping": 30.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
    "gemma3, usual layers": (
        "gemma3_text",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 9, "num_hidden_layers": 7},
    ),
    "phi3": ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
    "phi3 partial, longrope": (
        "phi3",
        {
            **{"rope_parameters": LONGROPE, "original_max_position_embeddings": 256, "max_position_embeddings": 512},
            "num_key_value_heads": 3,
        },
    ),
}


def config_of(name: str) -> Any:
    from transformers import AutoConfig

    kind, differences = MODELS[name]
    return AutoConfig.for_model(kind, **{**SHARED, **differences})


def random_model(config: Any, seed: int = 0) -> Any:
    """A model whose every weight is random, norms and biases too: what is left at its start hides mistakes."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
            around = parameter if parameter.ndim == 1 else 0.0
            parameter.copy_(around + scale * torch.randn_like(parameter))
    return model


def source_logits(model: Any, tokens: list[int]) -> NDArray[np.float32]:
    """(tokens, vocabulary) float32 of the model in torch."""
    import torch

    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
    return found


def save(model: Any, folder: Path) -> Path:
    """The model as transformers saves it, with a small byte-level tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer(folder)
    return folder


def byte_tokenizer(folder: Path) -> None:
    """A tokenizer.json of three special tokens, the bytes and one merge, cut as GPT-2 cuts."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>"]
    ids = {token: i for i, token in enumerate([*special, *letters, "th"])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))


def kl(source: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL divergence (positions,) of `other` from `source`, nats."""
    first, second = (rows.astype(np.float64) - rows.max(axis=-1, keepdims=True) for rows in (source, other))
    first, second = (rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True)) for rows in (first, second))
    divergence: NDArray[np.float64] = (np.exp(first) * (first - second)).sum(axis=-1)
    return divergence
