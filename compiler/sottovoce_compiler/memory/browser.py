"""The memory of a bundle in a browser: the renderer of a page that runs it on ONNX Runtime Web (examples/browser).

Knows what that page holds at once while it opens a bundle: the file's weights as they were read, float32 copies of the
matrices that WebAssembly has no kernels for (`src/engines/widen.js`), and all that again in WebAssembly's heap, which
never shrinks; and that what JavaScript no longer uses stays until it is collected. Other pages may take more or less.
"""

from collections.abc import Sequence

from sottovoce.bench_chat import LONG
from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear
from sottovoce_compiler.memory.causal_matrices import causal_matrices
from sottovoce_compiler.memory.matrices import Matrix
from sottovoce_compiler.memory.measured import constants
from sottovoce_compiler.memory.plan import MemoryPlan, Parts, Use
from sottovoce_compiler.memory.recipes import ChatRecipe, SpeechRecipe
from sottovoce_compiler.memory.whisper_audio import BENCH_SECONDS, PIECE_SECONDS, whisper_matrices
from sottovoce_compiler.memory.whisper_onnx import activations

_FLOAT = 4  # bytes


def plan_whisper_browser(spec: WhisperSpec, recipe: SpeechRecipe) -> MemoryPlan:
    """The plan of a speech bundle made by `recipe`. The page decodes one piece at a time and has no streams."""
    known = constants("browser")

    def piece(seconds: float) -> Parts:
        active = known["activations"] * activations(spec, seconds)
        return {"activations": round(active), "uncollected": round(known["uncollected"])}

    uses = (Use(f"{seconds:g} s of speech", piece(seconds)) for seconds in (BENCH_SECONDS, PIECE_SECONDS))
    return MemoryPlan(_page(), _opened(whisper_matrices(spec, recipe)), {}, tuple(uses))


def plan_causal_browser(spec: CausalSpec, recipe: ChatRecipe, context: int, tokenizer: int) -> MemoryPlan:
    """The plan of a chat bundle made by `recipe` for `context` positions; `tokenizer` is the bytes of its
    tokenizer.json."""
    known = constants("browser")
    held = {**_opened(causal_matrices(spec, recipe)), "tokenizer": round(known["tokenizer"] * tokenizer)}
    short = min(LONG, context // 2)

    def caches(positions: int) -> int:
        """The cache goes from run to run through JavaScript: it is in its arrays, and in the heap."""
        cache = 2 * spec.layers * spec.kv_heads * spec.head_width * _FLOAT * positions
        return round(known["caches"] * cache)

    def adds(cache: int) -> Parts:
        return {"cache": cache, "uncollected": round(known["uncollected_chat"])}

    # By the time a long text was read, the widened weights that were handed to the heap have been collected.
    whole = max(caches(short), caches(context) - held["widened weights"])
    uses = (Use(f"{short} tokens", adds(caches(short))), Use(f"whole context, {context} tokens", adds(whole)))
    return MemoryPlan(_page(), held, {}, uses)


def _page() -> Parts:
    return {"page": round(constants("browser")["page"])}


def _opened(matrices: Sequence[Matrix]) -> Parts:
    """What stays of opening the bundle. Nothing of it is given back at once, so that it is the peak of opening too."""
    known = constants("browser")
    narrow = [matrix for matrix in matrices if isinstance(matrix.linear, DynamicInt8Linear)]
    wide = sum(matrix.values for matrix in matrices if matrix not in narrow) * _FLOAT
    widened = [matrix for matrix in matrices if isinstance(matrix.linear, BlockLinear | SearchedLinear)]
    # Matrices are laid out for the kernels one after the other; the room of the one before takes the next.
    packing = max((matrix.values // matrix.count for matrix in widened), default=0) * _FLOAT
    return {
        "engine": round(known["engine"]),
        "file": round(known["file"] * sum(matrix.stored for matrix in matrices)),
        "widened weights": sum(matrix.values for matrix in widened) * _FLOAT,
        "heap": wide + packing + 2 * sum(matrix.stored for matrix in narrow),
    }
