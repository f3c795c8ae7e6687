"""The memory of a language model on LiteRT: its file, the kernels' copies of its matrices, its tokenizer, and a cache
that lies in the graph's inputs.

Knows the graph of `lowerings.litert.causal` and what the runtime's engine allocates around it, for a `.svb` (see
`whisper_litert`).
"""

from sottovoce.bench_chat import LONG
from sottovoce.engines.bundle_chat import ROOM
from sottovoce.engines.litert_chat import PART
from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.litert.causal_recipe import CausalRecipe
from sottovoce_compiler.memory.causal_matrices import causal_matrices
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Parts, Use
from sottovoce_compiler.memory.tokenizer import live_tables, reading
from sottovoce_compiler.memory.xnnpack import looked_up, packed

_FLOAT = 4  # bytes


def plan_causal_litert(spec: CausalSpec, recipe: CausalRecipe, context: int, tokenizer: int) -> MemoryPlan:
    """The plan of a bundle made by `recipe` for `context` positions; `tokenizer` is the bytes of its tokenizer.json."""
    matrices = causal_matrices(spec, recipe)
    stored, copies, table = sum(matrix.stored for matrix in matrices), packed(matrices), live_tables(tokenizer)
    return MemoryPlan(
        imports=imports("python", "numpy", "litert", "tokenizers"),
        held={
            "file": stored,
            "packed weights": copies,
            "widened weights": looked_up(matrices[-1]),
            "tokenizer": table,
            "engine": round(constants("causal_litert")["engine"]),
        },
        # The tokenizer is read first; the copies are then made in what that took, where it was more.
        opening={"opening": max(0, reading(tokenizer) - table - copies)},
        uses=(
            Use(f"{min(LONG, context // 2)} tokens", _adds(spec, min(ROOM, context))),
            Use(f"whole context, {context} tokens", _adds(spec, context)),
        ),
    )


def _adds(spec: CausalSpec, positions: int) -> Parts:
    known = constants("causal_litert")
    cache = 2 * spec.layers * spec.kv_heads * spec.head_width * _FLOAT * positions
    rows = PART * (8 * spec.width + 3 * spec.ffn) * _FLOAT
    scores = spec.heads * PART * positions * _FLOAT
    return {
        "cache": cache,
        # Where the number of tokens changes, the graph's inputs are made anew: what is in them is copied out meanwhile.
        "copied cache": round(known["copied"] * cache),
        "activations": round(known["activations"] * rows + known["scores"] * scores),
    }
