"""The memory of a Whisper on LiteRT: both files, the kernels' copies of their matrices, activations and caches.

Knows the graphs of `lowerings.litert.whisper` and what the runtime's engine allocates around them. The bundle is a
`.svb`, of which LiteRT maps no part: its files are in memory whole, beside the copies. From a folder they are mapped,
and the system takes their pages back where memory is short.
"""

from dataclasses import dataclass

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.litert.recipe import Recipe
from sottovoce_compiler.lowerings.onnx.mel import fourier_basis
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Parts
from sottovoce_compiler.memory.whisper_audio import (
    ENCODERS,
    FLOAT,
    LEAD_SECONDS,
    PIECE_SECONDS,
    RATE,
    cross_bytes,
    encoded_frames,
    past_bytes,
    rows_together,
    stem_values,
    used,
    whisper_matrices,
)
from sottovoce_compiler.memory.xnnpack import looked_up, packed, widened

_HALF = 2  # bytes


def plan_whisper_litert(spec: WhisperSpec, recipe: Recipe, window: float) -> MemoryPlan:
    """The plan of a bundle made by `recipe`; `window` is the seconds of audio that its stream decodes at most."""
    matrices = whisper_matrices(spec, recipe)
    tables = (spec.n_audio_ctx + spec.n_text_ctx) * spec.width + stem_values(spec)
    stored = tables * (_HALF if recipe.half_tables else FLOAT) + fourier_basis().nbytes
    # What is stored in halves is widened once; the convolutions' kernels are then laid out anew as well.
    tables_widened = (tables if recipe.half_tables else 0) * FLOAT + stem_values(spec) * FLOAT + fourier_basis().nbytes
    adds = _Adds(spec)
    return MemoryPlan(
        imports=imports("python", "numpy", "onnxruntime", "litert"),
        held={
            "file": sum(matrix.stored for matrix in matrices) + stored,
            "packed weights": packed(matrices) + tables_widened,
            # The encoder's halves stay beside the copies made of them once they are widened, as the head's do.
            "widened weights": widened(matrices[:ENCODERS]) + looked_up(matrices[-1]),
            "engine": round(constants("onnxruntime")["code"] + constants("litert_speech")["session"]),
        },
        opening={},
        uses=used(adds.piece, adds.stream, adds.batches(), window),
    )


@dataclass(frozen=True, slots=True)
class _Adds:
    """What each use adds."""

    spec: WhisperSpec

    def piece(self, seconds: float) -> Parts:
        """A recording of one piece."""
        return self._parts(seconds)

    def stream(self, window: float) -> Parts:
        """Audio of ever different length: what was taken for one is too small for the next, and is not given back."""
        parts, known = self._parts(window), constants("litert_speech")
        grown = sum(parts[name] for name in ("activations", "cross", "past"))
        return {**parts, "lengths": round((known["lengths"] - 1) * grown)}

    def batches(self) -> Parts:
        """A recording of many pieces, as many decoded together as the transcriber has memory for."""
        rows, frames = rows_together(self.spec), encoded_frames(self.spec, PIECE_SECONDS + LEAD_SECONDS)
        renewed = constants("litert_speech")["renewed"] * cross_bytes(self.spec, frames)
        return {**self._parts(PIECE_SECONDS, rows), "lengths": round(renewed)}

    def _parts(self, seconds: float, rows: int = 1) -> Parts:
        known = constants("litert_speech")
        frames = encoded_frames(self.spec, seconds + LEAD_SECONDS)
        # The encoder's results are one copy of a row's keys and values; the row has another, the decoder's inputs too.
        copies = known["copies"] + 2 * (rows - 1)
        return {
            "activations": round(known["rows"] * frames * self.spec.width * FLOAT),
            "cross": round(copies * cross_bytes(self.spec, frames)),
            "past": round(known["copies"] * rows * past_bytes(self.spec, seconds)),
            "audio": round(constants("speech")["audio"] * rows * seconds * RATE * FLOAT),
        }
