"""The memory of a language model in llama.cpp: the file, which is mapped, what is packed anew, and the whole cache.

Knows what llama.cpp allocates when a model and a context are made, and which formats of weights it copies into another
layout on which processor. That is so on x86-64, where it was measured; on ARM it follows llama.cpp's sources.
"""

from collections.abc import Iterable
from math import prod

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.gguf.recipe import Choice
from sottovoce_compiler.memory.causal_onnx import activations
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Use

_CACHE_VALUE = 2  # bytes: keys and values are kept as float16
_PACKED_ANEW = {
    "x86-64": (Kind.Q4_0, Kind.Q4_K, Kind.IQ4_NL),
    "aarch64": (Kind.Q4_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0, Kind.IQ4_NL),  # with the dot product only
}


def plan_causal_gguf(
    spec: CausalSpec, choices: Iterable[Choice], context: int, arch: str, instructions: Iterable[str]
) -> MemoryPlan:
    """The plan of a bundle whose tensors have the formats `choices`, for `context` positions on such a processor."""
    known, chosen = constants("causal_gguf"), list(choices)
    weights = sum(stored(choice) for choice in chosen)
    cache = 2 * spec.layers * spec.kv_heads * spec.head_width * _CACHE_VALUE * context
    anew = () if arch == "aarch64" and "asimddp" not in instructions else _PACKED_ANEW.get(arch, ())
    packed = sum(stored(choice) for choice in chosen if choice.chosen in anew and choice.name.startswith("blk."))
    adds = {
        "activations": round(known["activations"] * activations(spec)),
        "running": round(known["running"]),
    }
    return MemoryPlan(
        imports=imports("python", "numpy", "llama.cpp"),
        held={
            "weights": weights + packed,
            "vocabulary": round((known["metadata"] + known["token"]) * spec.vocab_size),
            "engine": round(known["engine"]),
            "cache": cache,
        },
        opening={},
        uses=(Use(f"whole context, {context} tokens", adds),),
    )


def stored(choice: Choice) -> int:
    """Bytes of one tensor in the file."""
    block, size = GGML_QUANT_SIZES[choice.chosen]
    return prod(choice.shape) * size // block
