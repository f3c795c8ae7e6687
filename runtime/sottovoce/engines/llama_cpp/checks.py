"""What a GGUF file must say before llama.cpp sees it: as a model, and as an adapter for a model.

llama.cpp ends the whole process where it takes something for granted (GGML_ASSERT), or throws where nothing catches:
every such place on the way of loading and running a model is met here first, with an error that names key and value.
What llama.cpp itself refuses with a message (a missing tensor, a wrong shape) is left to it. Knows keys and bounds; the
format is `sottovoce.gguf`'s.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sottovoce.errors import BundleError, InputError
from sottovoce.gguf import GgufFile, GgufTensor, Value
from sottovoce.manifest import printable

_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VOCABULARIES = ("gpt2", "llama", "gemma4", "bert")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# Architectures whose heads are as wide for values as for keys, and those of them whose heads turn whole.
_WHOLE_TURN = frozenset({"llama", "mistral3", "qwen2", "qwen3", "smollm3"})
_SQUARE = _WHOLE_TURN | {"phi3", "gemma", "gemma2", "gemma3", "gemma-embedding", "bert", "nomic-bert"}
_NUMBER_MAX = 1 << 24
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_LORA = re.compile(r"(?P<base>.+)\.lora_(?P<half>[ab])")
# Types that a matrix can be multiplied in.
_WEIGHT_KINDS = frozenset({"F32", "F16", "BF16"}) | {
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4"),
    *("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS", "NVFP4", "Q1_0", "Q2_0"),
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the engine must know of a model; `position_values` is how many numbers its cache holds for a position."""

    architecture: str
    layers: int
    width: int
    ffn: int
    heads: int
    context: int
    vocabulary: int
    position_values: int
    pooling: int | None


class _Keys:
    """A file's metadata, read with bounds; errors name the file, the key and the value."""

    def __init__(self, gguf: GgufFile, prefix: str = "") -> None:
        self._gguf = gguf
        self.prefix = prefix
        self.metadata: Mapping[str, Value] = gguf.metadata

    def bad(self, what: str) -> BundleError:
        return BundleError(f"{printable(str(self._gguf.path), 500)}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self.bad(f"{key} is {_shown(value)}, expected a text")
        return value

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """One whole number, of the model's own keys."""
        key = f"{self.prefix}{key}"
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.bad(f"{key} is {_shown(value)}; {least} to {most} is possible")
        return value

    def integers(self, key: str, count: int, most: int, default: list[int] | None = None) -> list[int]:
        """A number for each of `count` layers, however many the file gives."""
        value = self.metadata.get(f"{self.prefix}{key}", default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            value = value.tolist()
        if isinstance(value, list):
            good = [item for item in value[:count] if isinstance(item, int) and 0 <= item <= most]
            if len(good) < count:
                raise self.bad(f"{self.prefix}{key} has not {count} numbers of 0 to {most}")
            return good
        return [self.integer(key, 0, most)] * count

    def real(self, key: str, least: float, most: float, default: float) -> float:
        key = f"{self.prefix}{key}"
        value = self.metadata.get(key, default)
        if not isinstance(value, float) or not math.isfinite(value) or not least <= value <= most:
            raise self.bad(f"{key} is {_shown(value)}; {least:g} to {most:g} is possible")
        return value


def check_model(gguf: GgufFile) -> ModelFacts:
    """Raises BundleError where llama.cpp could not load or run this as a model."""
    keys = _Keys(gguf)
    if (kind := keys.text("general.type", "model")) != "model":
        raise keys.bad(f"general.type is {_shown(kind)}: this is no model that text can be made with")
    architecture = keys.text("general.architecture")
    if not _ARCHITECTURE.fullmatch(architecture):
        raise keys.bad(f"general.architecture is {_shown(architecture)}")
    if keys.integer("split.count", 0, 1 << 16, 0) > 1:
        raise keys.bad("one part of a model that was split: join the parts (llama-gguf-split --merge)")
    vocabulary = _check_vocabulary(keys)
    keys.prefix = f"{architecture}."
    _check_experts(keys)
    _check_rope(keys)
    return _facts(keys, architecture, vocabulary)


def _facts(keys: _Keys, architecture: str, vocabulary: int) -> ModelFacts:
    layers = keys.integer("block_count", 1, 512)
    keys.integer("nextn_predict_layers", 0, layers - 1, 0)
    width = keys.integer("embedding_length", 1, 1 << 17)
    ffn = keys.integers("feed_forward_length", layers, _NUMBER_MAX, [0] * layers)
    heads = keys.integers("attention.head_count", layers, 1 << 12, [0] * layers)
    kv_heads = keys.integers("attention.head_count_kv", layers, 1 << 12, heads)
    for layer, (q, kv) in enumerate(zip(heads, kv_heads, strict=True)):
        if kv and q % kv:
            raise keys.bad(f"layer {layer} has {q} heads over {kv} of keys and values, which does not divide")
    usual = width // max(*heads, 1)
    if heads[0] and f"{keys.prefix}attention.key_length" not in keys.metadata and width % heads[0]:
        raise keys.bad(f"{heads[0]} heads do not divide a width of {width}")
    key = keys.integer("attention.key_length", 1, 1 << 14, max(usual, 1))
    value = keys.integer("attention.value_length", 1, 1 << 14, max(usual, 1))
    turning = keys.integer("rope.dimension_count", 0, 1 << 14, key)
    if turning > key or turning % 2 or (architecture in _WHOLE_TURN and turning != key):
        raise keys.bad(f"{keys.prefix}rope.dimension_count is {turning}; a head has {key}")
    if architecture in _SQUARE and key != value:
        raise keys.bad(f"{keys.prefix}attention.key_length is {key}, value_length {value}; expected the same")
    for name in ("dense_2_feat_in", "dense_3_feat_out"):
        keys.integer(name, width, width, width)
    keys.integer("vocab_size", 1, 1 << 22, vocabulary)
    keys.real("attention.layer_norm_rms_epsilon", 0.0, 1.0, 0.0)
    keys.real("attention.layer_norm_epsilon", 0.0, 1.0, 0.0)
    pooled = f"{keys.prefix}pooling_type" in keys.metadata
    return ModelFacts(
        *(architecture, layers, width, max(ffn), max(heads), keys.integer("context_length", 1, _NUMBER_MAX)),
        *(vocabulary, sum(kv_heads) * (key + value), keys.integer("pooling_type", 0, 4) if pooled else None),
    )


def _check_vocabulary(keys: _Keys) -> int:
    """The number of tokens."""
    kind = keys.text("tokenizer.ggml.model")
    if kind not in _VOCABULARIES:
        raise keys.bad(f"tokenizer.ggml.model is {_shown(kind)}; possible are {', '.join(_VOCABULARIES)}")
    keys.text("tokenizer.ggml.pre", "default")
    tokens = keys.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise keys.bad("tokenizer.ggml.tokens is not a list of texts")
    distinct = {text or f"[EMPTY_{index}]" for index, text in enumerate(tokens)}
    if len(distinct) != len(tokens):
        raise keys.bad(f"tokenizer.ggml.tokens has {len(tokens) - len(distinct)} tokens twice")
    if kind == "llama":  # text that no token spells falls back to bytes, and each must be there
        missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in distinct]
        if missing := [byte for byte in missing if byte > 127 or chr(byte) not in distinct]:
            raise keys.bad(f"tokenizer.ggml.tokens has no token for byte {missing[0]}")
    return len(tokens)


def _check_experts(keys: _Keys) -> None:
    experts = keys.integer("expert_count", 0, 512, 0)
    used = keys.integer("expert_used_count", 0, 512, 0)
    groups = keys.integer("expert_group_count", 0, 512, 0)
    groups_used = keys.integer("expert_group_used_count", 0, 512, 0)
    if used > experts or (experts > 0) != (used > 0):
        raise keys.bad(f"{used} of {experts} experts are to be used, which cannot be")
    if groups and (groups >= experts or (groups > 1 and (experts % groups or not 0 < groups_used < groups))):
        raise keys.bad(f"{experts} experts in {groups} groups, of which {groups_used} are used, cannot be")


def _check_rope(keys: _Keys) -> None:
    scaling = keys.text(f"{keys.prefix}rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise keys.bad(f"{keys.prefix}rope.scaling.type is {_shown(scaling)}; known: {', '.join(_ROPE_SCALINGS)}")
    keys.real("rope.freq_base", 1e-3, 1e12, 1e4)


def check_adapter(adapter: GgufFile, base: GgufFile) -> None:
    """Raises BundleError for a damaged LoRA adapter, InputError for one that was made for another model."""
    keys = _Keys(adapter)
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if (found := keys.text(key, "")) != wanted:
            raise _unfit(adapter, f"{key} is {_shown(found)}, expected {wanted!r}: it is no LoRA adapter")
    own, theirs = keys.text("general.architecture"), base.metadata["general.architecture"]
    if own != theirs:
        raise _unfit(adapter, f"made for {_shown(own)}; the model is {_shown(theirs)}")
    if "adapter.alora.invocation_tokens" in adapter.metadata:
        raise _unfit(adapter, "an activated LoRA (adapter.alora.invocation_tokens), which is not supported")
    keys.real("adapter.lora.alpha", -1e6, 1e6, 0.0)
    if not adapter.tensors:
        raise _unfit(adapter, "it has no tensors, and would change nothing")
    halves: dict[str, dict[str, GgufTensor]] = {}
    for tensor in adapter.tensors.values():
        if (named := _LORA.fullmatch(tensor.name)) is None:
            raise _unfit(adapter, f"tensor {_shown(tensor.name)} is no half of a LoRA pair")
        halves.setdefault(named["base"], {})[named["half"]] = tensor
    for name, pair in halves.items():
        _check_pair(adapter, base, name, pair)


def _check_pair(adapter: GgufFile, base: GgufFile, name: str, pair: Mapping[str, GgufTensor]) -> None:
    if pair.keys() != {"a", "b"}:
        raise _unfit(adapter, f"{_shown(name)} has only lora_{min(pair)}")
    if (target := base.tensors.get(name)) is None:
        raise _unfit(adapter, f"the model has no tensor {_shown(name)}")
    if name == _EMBEDDING and _HEAD not in base.tensors:
        raise _unfit(adapter, f"it changes {_shown(name)}, which in this model is the head too: llama.cpp cannot")
    a, b = pair["a"], pair["b"]
    if not len(a.shape) == len(b.shape) == len(target.shape) == 2:
        raise _unfit(adapter, f"{_shown(name)}: only matrices can have an adapter")
    # An embedding is looked up, not multiplied: llama.cpp wants its halves the other way round.
    (rows, columns), looked_up = target.shape, name == _EMBEDDING
    fits = a.shape[0] == rows and b.shape[0] == columns if looked_up else a.shape[1] == columns and b.shape[0] == rows
    inner = a.shape[1] == b.shape[1] if looked_up else a.shape[0] == b.shape[1]
    if not fits or not inner:
        raise _unfit(adapter, f"{_shown(name)} is {target.shape} in the model; a {a.shape} and b {b.shape} do not fit")
    for half in (a, b):
        if half.kind not in _WEIGHT_KINDS:
            raise _unfit(adapter, f"{_shown(half.name)} is stored as {half.kind}, which cannot be multiplied")


def _unfit(adapter: GgufFile, what: str) -> InputError:
    return InputError(f"{printable(str(adapter.path), 500)}: {what}")


def _shown(value: object) -> str:
    return printable(repr(value), 100)
