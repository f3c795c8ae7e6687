"""A GGUF file's metadata as a Hugging Face config, and its tensors' names as Hugging Face's: one row an architecture.

Knows the keys that llama.cpp's converters write. Does not read tensors' data and makes no choice of its own: what a
file does not say, and what Hugging Face could not say, is refused by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.sources.checkpoint import SourceError

Float = NDArray[np.float32]

_LLAMA = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QWEN3 = _LLAMA | {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA3 = _QWEN3 | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {key: name for key, name in _LLAMA.items() if key not in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")}
_PHI3 |= {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # go into the config
_BLOCK = re.compile(r"blk\.(?P<layer>\d{1,4})\.(?P<part>\w+)\.(?P<kind>weight|bias)")

_GEMMA_STEP = 6  # every sixth layer of Gemma 3 sees all, where the file says nothing
_GEMMA_27B_LAYERS = 62
# Turns end with these, and files name only one of a model's ends.
_ENDS = frozenset({"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>"})

# Llama 3's scaling as every published model of it has it; its factors are in the file, these parameters are not.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class Architecture:
    """What one `general.architecture` is called in Hugging Face, and how its files differ from theirs."""

    model_type: str
    parts: Mapping[str, str]
    permuted: bool = False  # rows of q and k lie in pairs, for the rotation that llama.cpp uses
    norm_offset: float = 0.0  # what the converter added to every norm's weights
    rope_parameters: Callable[["Metadata", Mapping[str, Float]], dict[str, Any]] | None = None
    extra: Callable[["Metadata"], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file; `get` reads a key of its architecture (`llama.block_count`)."""

    name: str
    values: Mapping[str, Any]
    architecture: str

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of `ARCHITECTURE.key`; a `SourceError` where it is missing without a default, or no `kind`."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            found = "missing" if value is None else repr(value)[:60]
            raise SourceError(f"{self.name}: {self.architecture}.{key} is {found}, expected a {kind.__name__}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """As `get`, of at least 1."""
        value: int = self.get(key, int, default)
        if value < 1:
            raise SourceError(f"{self.name}: {self.architecture}.{key} is {value}, expected at least 1")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values


def architecture_of(name: str, values: Mapping[str, Any]) -> tuple[Architecture, Metadata]:
    """The row of `ARCHITECTURES` for a file's metadata; a `SourceError` names one that is not there."""
    found = values.get("general.architecture")
    if not isinstance(found, str) or found not in ARCHITECTURES:
        raise SourceError(
            f"{name}: architecture {str(found)[:60]!r} cannot be compiled from GGUF; "
            f"known are {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[found], Metadata(name, values, found)


def config_of(
    row: Architecture, data: Metadata, shapes: Mapping[str, tuple[int, ...]], factors: Mapping[str, Float]
) -> dict[str, Any]:
    """The config.json that the source model had, as far as its graph is concerned.

    `shapes` are the tensors' by GGUF name, rows first; `factors` holds those of `_FACTORS` that the file has.
    """
    heads, width, layers = data.count("attention.head_count"), data.count("embedding_length"), data.count("block_count")
    if "token_embd.weight" not in shapes:
        raise SourceError(f"{data.name}: there is no tensor token_embd.weight; the file holds no whole model")
    if layers > len(shapes):
        raise SourceError(f"{data.name}: {data.architecture}.block_count is {layers}; there are {len(shapes)} tensors")
    head_width = data.count("attention.key_length", width // heads)
    _check_factors(data, factors, head_width)
    rope = row.rope_parameters or _plain_rope
    config = {
        "model_type": row.model_type,
        "hidden_size": width,
        "intermediate_size": data.count("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": data.count("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": data.count("context_length"),
        "rms_norm_eps": _shortest(data.get("attention.layer_norm_rms_epsilon", float)),
        "vocab_size": shapes["token_embd.weight"][0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": rope(data, factors),
    }
    return config | _token_ids(data.values) | (row.extra(data) if row.extra else {})


def _check_factors(data: Metadata, factors: Mapping[str, Float], head_width: int) -> None:
    """A `SourceError` where the rotation's factors, or how much of a head turns, do not fit a head."""
    turned = data.count("rope.dimension_count", head_width)
    if turned != head_width and data.architecture != "phi3":
        raise SourceError(
            f"{data.name}: {turned} of {head_width} values of a head turn, which {data.architecture} has no config for"
        )
    for name, values in factors.items():
        if values.shape != (turned // 2,):
            raise SourceError(f"{data.name}: {name} has shape {values.shape}, expected ({turned // 2},)")


def hf_name(row: Architecture, name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor; None for one that belongs into the config, KeyError for a stranger."""
    if name in _FACTORS:
        return None
    if match := _BLOCK.fullmatch(name):
        return f"model.layers.{match['layer']}.{row.parts[match['part']]}.{match['kind']}"
    stem, _, kind = name.rpartition(".")
    return f"{_WHOLE[stem]}.{kind}"


def is_factors(name: str) -> bool:
    """Whether a tensor holds factors of the rotation, which Hugging Face keeps in the config."""
    return name in _FACTORS


def _plain_rope(data: Metadata, factors: Mapping[str, Float]) -> dict[str, Any]:
    base = {"rope_theta": _shortest(data.get("rope.freq_base", float, 10000.0))}
    if "rope_freqs.weight" in factors:
        return base | _llama3_scaling(data, base["rope_theta"], factors["rope_freqs.weight"])
    # Where the file names no kind llama.cpp takes "linear"; the second key is the first one's older name, 0 is none.
    kind = data.get("rope.scaling.type", str, "linear")
    if kind not in ("linear", "none"):
        raise SourceError(
            f"{data.name}: rope scaling {kind[:40]!r} cannot be compiled from GGUF; give the original model"
        )
    factor = data.get("rope.scaling.factor", float, data.get("rope.scale_linear", float, 1.0))
    if kind == "none" or factor in (0, 1):
        return base | {"rope_type": "default"}
    return base | {"rope_type": "linear", "factor": _shortest(factor)}


def _llama3_scaling(data: Metadata, base: float, factors: Float) -> dict[str, Any]:
    """The parameters that give exactly these factors, or an error: they are not in the file."""
    factor = float(factors.max())
    wavelengths = 2 * np.pi * base ** (np.arange(factors.size) / factors.size)
    old, low, high = (
        _LLAMA3[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    smooth = (old / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    expected = np.where(wavelengths < old / high, 1.0, np.where(wavelengths > old / low, factor, between))
    if not np.allclose(expected, factors, rtol=1e-4):
        raise SourceError(f"{data.name}: its rope_freqs are not those of Llama 3; give the original model's folder")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _gemma3_rope(data: Metadata, factors: Mapping[str, Float]) -> dict[str, Any]:
    local = {"rope_type": "default", "rope_theta": _shortest(data.get("rope.freq_base_swa", float, 10000.0))}
    return {"full_attention": _plain_rope(data, factors), "sliding_attention": local}


def _gemma3_extra(data: Metadata) -> dict[str, Any]:
    width, heads, layers = data.count("embedding_length"), data.count("attention.head_count"), data.count("block_count")
    # llama.cpp knows the 27B, whose scale is another, by its number of layers.
    scale = width // heads if layers == _GEMMA_27B_LAYERS else data.count("attention.key_length", width // heads)
    window = data.get("attention.sliding_window", int, 0)
    sliding = _sliding(data, layers) if window > 0 else [False] * layers
    return {
        **({"sliding_window": window} if any(sliding) else {}),
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in sliding],
        "query_pre_attn_scalar": scale,
        "final_logit_softcapping": data.get("final_logit_softcapping", float)
        if data.has("final_logit_softcapping")
        else None,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _sliding(data: Metadata, layers: int) -> list[bool]:
    """For each layer whether it slides: a list of that, or after how many layers one sees all (0: none does)."""
    key = f"{data.architecture}.attention.sliding_window_pattern"
    value = data.values.get(key, _GEMMA_STEP)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu" and len(value) >= layers:
        return [bool(slides) for slides in value[:layers]]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SourceError(f"{data.name}: {key} is {repr(value)[:60]}, expected a number or one for each of {layers}")
    return [value == 0 or layer % value < value - 1 for layer in range(layers)]


def _phi3_rope(data: Metadata, factors: Mapping[str, Float]) -> dict[str, Any]:
    head = data.count("attention.key_length", data.count("embedding_length") // data.count("attention.head_count"))
    turned = data.count("rope.dimension_count", head)
    base = {"rope_theta": _shortest(data.get("rope.freq_base", float, 10000.0)), "partial_rotary_factor": turned / head}
    if missing := sorted({"rope_factors_long.weight", "rope_factors_short.weight"} - set(factors)):
        if len(missing) == 2:
            return base | {"rope_type": "default"}
        raise SourceError(f"{data.name}: there is no tensor {missing[0]}; longrope needs both")
    return base | {
        "rope_type": "longrope",
        "long_factor": [_shortest(float(value)) for value in factors["rope_factors_long.weight"]],
        "short_factor": [_shortest(float(value)) for value in factors["rope_factors_short.weight"]],
        "attention_factor": data.get("rope.scaling.attn_factor", float, 1.0),
        "original_max_position_embeddings": data.get("rope.scaling.original_context_length", int),
    }


def _phi3_extra(data: Metadata) -> dict[str, Any]:
    extra: dict[str, Any] = {"sliding_window": data.get("attention.sliding_window", int, 0) or None}
    if data.has("rope.scaling.original_context_length"):
        extra["original_max_position_embeddings"] = data.get("rope.scaling.original_context_length", int)
    return extra


def _smollm3_extra(data: Metadata) -> dict[str, Any]:
    # llama.cpp knows only the published pattern, and the file does not name it.
    return {"no_rope_layer_interval": 4}


def _token_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    """Special tokens; several end an answer: the file's own, and those whose spelling llama.cpp knows as an end."""
    tokens = values.get("tokenizer.ggml.tokens")
    tokens = tokens if isinstance(tokens, list) else []

    def one(name: str) -> list[int]:
        value = values.get(f"tokenizer.ggml.{name}_token_id")
        return [value] if isinstance(value, int) and 0 <= value < len(tokens) else []

    spelled = [index for index, token in enumerate(tokens) if token in _ENDS]
    ends = list(dict.fromkeys([*one("eos"), *one("eot"), *one("eom"), *spelled]))
    begin, padding = one("bos"), one("padding")
    return {
        "bos_token_id": begin[0] if begin else None,
        "eos_token_id": ends if len(ends) > 1 else (ends[0] if ends else None),
        "pad_token_id": padding[0] if padding else None,
    }


def _shortest(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05, where widening it gives 9.999999747378752e-06."""
    return float(str(np.float32(value)))


ARCHITECTURES = {
    "llama": Architecture("llama", _LLAMA, permuted=True),
    "qwen2": Architecture("qwen2", _LLAMA),
    "qwen3": Architecture("qwen3", _QWEN3),
    "gemma3": Architecture("gemma3_text", _GEMMA3, norm_offset=1.0, rope_parameters=_gemma3_rope, extra=_gemma3_extra),
    "smollm3": Architecture("smollm3", _LLAMA, permuted=True, extra=_smollm3_extra),
    "phi3": Architecture("phi3", _PHI3, rope_parameters=_phi3_rope, extra=_phi3_extra),
}
