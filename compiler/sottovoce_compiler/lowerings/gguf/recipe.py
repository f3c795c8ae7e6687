"""Which format each tensor of a GGUF file gets: llama.cpp's mixes, and what falls back because of its row size.

Knows the decisions of llama.cpp's own quantizer (src/llama-quant.cpp) for the mixes and architectures we write, and
nothing of data. A file made by this recipe has the types llama.cpp would have given it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Kind

from sottovoce.errors import InputError

# Name of a mix: what most of its tensors get, and the number in `general.file_type`.
MIXES: dict[str, tuple[Kind, LlamaFileType]] = {
    "F32": (Kind.F32, LlamaFileType.ALL_F32),
    "F16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "BF16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "Q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "Q6_K": (Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "Q5_K_M": (Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "Q4_K_M": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "Q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "IQ4_NL": (Kind.IQ4_NL, LlamaFileType.MOSTLY_IQ4_NL),
}
_PLAIN = (Kind.F32, Kind.F16, Kind.BF16)
# Formats in blocks of 256, and what stands in for them where rows do not divide by 256.
_FALLBACKS = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_VALUES = ("attn_v.weight", "attn_qkv.weight")
_DOWN = "ffn_down.weight"
# With 80 layers and fewer key-value heads these are llama.cpp's "70B", which spends more on the small value matrices.
_SEVENTY_LAYERS = 80
_SEVENTY_ANY_HEADS = ("qwen2",)
_SEVENTY = ("llama", *_SEVENTY_ANY_HEADS)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one tensor gets; `reason` says why where that is not what the mix wants."""

    name: str
    shape: tuple[int, ...]  # (rows, columns) or (width,)
    wanted: Kind
    chosen: Kind
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Mix:
    """The facts a decision is made from."""

    name: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    values: int  # tensors that hold value projections
    importance: bool

    def default(self) -> Kind:
        return MIXES[self.name][0]

    def shared(self) -> int:
        """Query heads for each key-value head."""
        return self.heads // self.kv_heads

    def is_seventy(self) -> bool:
        known = self.architecture in _SEVENTY and self.layers == _SEVENTY_LAYERS
        return known and (self.architecture in _SEVENTY_ANY_HEADS or self.heads != self.kv_heads)


def plan(
    mix: str,
    architecture: str,
    tensors: Mapping[str, tuple[int, ...]],
    *,
    layers: int,
    heads: int,
    kv_heads: int,
    importance: bool = False,
) -> tuple[Choice, ...]:
    """The format of every tensor of a llama.cpp `architecture`, in the order of `tensors` (name to shape).

    `importance`: there is an importance matrix, with which llama.cpp decides differently for some first layers. Raises
    InputError for an unknown mix.
    """
    if mix not in MIXES:
        raise InputError(f"precision {mix!r} is not one of {', '.join(MIXES)}")
    values = sum(name.endswith(_VALUES) for name in tensors)
    facts = _Mix(mix, architecture, layers, heads, kv_heads, values, importance)
    found, seen = dict[str, Choice](), Counter[str]()
    tied = _HEAD not in tensors
    for name in sorted(tensors, key=_position):
        shape = tensors[name]
        wanted = _wanted(facts, name, seen, tied) if _quantizable(name, shape) else Kind.F32
        found[name] = _fitting(name, shape, wanted)
    return tuple(found[name] for name in tensors)


def fallback_share(choices: Iterable[Choice]) -> float:
    """The share of all weights, 0 to 1, that did not get the format their mix wants."""
    sizes = [(prod(choice.shape), choice.chosen != choice.wanted) for choice in choices]
    return sum(size for size, fell in sizes if fell) / max(1, sum(size for size, _ in sizes))


def _position(name: str) -> tuple[int, str]:
    """llama.cpp counts layers while going through the names in this order: what has no layer first, then by layer."""
    match = re.match(r"blk\.(\d+)\.", name)
    return (int(match[1]) if match else -1, name)


def _quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether it is a matrix of weights: vectors, biases and norms stay in float32."""
    return len(shape) == 2 and shape[0] > 1 and name.endswith(".weight") and not name.endswith("_norm.weight")


def _wanted(mix: _Mix, name: str, seen: Counter[str], tied: bool) -> Kind:
    """What the mix gives this tensor if its rows allow it; counts the value and down projections gone through."""
    if mix.default() in _PLAIN:
        return mix.default()
    if name == _HEAD or (tied and name == _EMBEDDING):
        return Kind.Q8_0 if mix.name == "Q8_0" else Kind.Q6_K
    if name.endswith(_VALUES):
        seen["values"] += 1
        return _for_values(mix, seen["values"] - 1)
    if name.endswith(_DOWN):
        seen["down"] += 1
        return _for_down(mix, seen["down"] - 1)
    return mix.default()


def _for_values(mix: _Mix, index: int) -> Kind:
    kind = mix.default()
    if mix.name == "IQ4_NL" and mix.shared() >= 4:
        kind = Kind.Q5_K
    elif mix.name in ("Q4_K_M", "Q5_K_M") and _deserves_more(index, mix.values):
        kind = Kind.Q6_K
    return Kind.Q5_K if mix.is_seventy() and kind is Kind.Q4_K else kind


def _for_down(mix: _Mix, index: int) -> Kind:
    first = index < mix.layers // 8
    if mix.name in ("Q4_K_M", "Q5_K_M") and _deserves_more(index, mix.layers):
        return Kind.Q6_K
    if mix.name == "IQ4_NL" and first and not mix.importance:
        return Kind.Q5_K
    if mix.name == "Q4_0" and first and mix.importance:
        return Kind.Q4_1
    return mix.default()


def _deserves_more(index: int, count: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _fitting(name: str, shape: tuple[int, ...], wanted: Kind) -> Choice:
    """The wanted format where its blocks divide the rows, else what stands in for it, else F16."""
    block = GGML_QUANT_SIZES[wanted][0]
    if shape[-1] % block == 0:
        return Choice(name, shape, wanted, wanted)
    chosen = _FALLBACKS.get(wanted, wanted)
    if shape[-1] % GGML_QUANT_SIZES[chosen][0]:
        chosen = Kind.F16
    return Choice(name, shape, wanted, chosen, f"rows of {shape[-1]} values are not a multiple of {block}")
