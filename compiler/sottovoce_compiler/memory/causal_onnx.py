"""The memory of a language model on onnxruntime: its matrices, its tokenizer, and a cache that grows as it is used.

Knows the graph of `lowerings.onnx.causal` and what the runtime's engine allocates around it.
"""

from sottovoce.bench_chat import LONG
from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.onnx.causal_recipe import CausalRecipe
from sottovoce_compiler.memory.causal_matrices import causal_matrices
from sottovoce_compiler.memory.matrices import held, looked_up, mapped_table, opening
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Parts, Use
from sottovoce_compiler.memory.tokenizer import reading, tables

_FLOAT = 4  # bytes
_PART = 256  # tokens of a prompt that are run at once
_ROOM = 512  # positions of the cache to begin with


def plan_causal_onnx(spec: CausalSpec, recipe: CausalRecipe, context: int, tokenizer: int) -> MemoryPlan:
    """The plan of a bundle made by `recipe` for `context` positions; `tokenizer` is the bytes of its tokenizer.json."""
    matrices = causal_matrices(spec, recipe)
    weights, mapped = held(matrices) + mapped_table(matrices[-1]), looked_up(matrices[-1])
    stays = {
        "weights": weights,
        "tokenizer": tables(tokenizer),
        "engine": round(constants("onnxruntime")["code"]),
        "rotations": context * spec.rope.width * _FLOAT,
    }
    return MemoryPlan(
        imports=imports("python", "numpy", "onnxruntime", "tokenizers"),
        held=stays,
        opening={"opening": max(opening(matrices), reading(tokenizer) - sum(stays.values()))},
        uses=(
            Use(f"{min(LONG, context // 2)} tokens", _adds(spec, min(_ROOM, context), mapped)),
            Use(f"whole context, {context} tokens", _adds(spec, context, mapped)),
        ),
    )


def activations(spec: CausalSpec) -> int:
    """Bytes of what is alive in one layer while a part of a prompt runs."""
    return _PART * (8 * spec.width + 3 * spec.ffn) * _FLOAT


def _adds(spec: CausalSpec, positions: int, mapped: int) -> Parts:
    known = constants("causal_onnx")
    return {
        "cache": 2 * spec.layers * spec.kv_heads * spec.head_width * _FLOAT * positions,
        "activations": round(known["activations"] * activations(spec)),
        "running": round(known["running"]) + mapped,
    }
