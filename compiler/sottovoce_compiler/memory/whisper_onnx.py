"""The memory of a Whisper on onnxruntime: its matrices, its caches, and the encoder's activations for so much audio.

Knows the graphs of `lowerings.onnx.whisper` and what the runtime's engine and transcriber allocate around them.
"""

from dataclasses import dataclass

from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.onnx.linear import FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe
from sottovoce_compiler.memory.matrices import held, looked_up, mapped_table, opening
from sottovoce_compiler.memory.measured import constants, imports
from sottovoce_compiler.memory.plan import MemoryPlan, Parts
from sottovoce_compiler.memory.whisper_audio import (
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

KEYS_TOGETHER = 64  # frames are filled up to a multiple of it
_HEADS_AT_ONCE = 4  # whose scores the encoder has in memory together


def plan_whisper_onnx(spec: WhisperSpec, recipe: Recipe, window: float) -> MemoryPlan:
    """The plan of a bundle made by `recipe`; `window` is the seconds of audio that its stream decodes at most."""
    engine, speech = constants("onnxruntime"), constants("speech")
    matrices = whisper_matrices(spec, recipe)
    stem = FLOAT * stem_values(spec)  # in float32 once it is open
    session = speech["float_session" if recipe.encoder == FloatLinear() else "session"]
    adds = _Adds(spec, looked_up(matrices[-1]))
    return MemoryPlan(
        imports=imports("python", "numpy", "onnxruntime"),
        held={"weights": held(matrices) + stem + mapped_table(matrices[-1]), "engine": round(engine["code"] + session)},
        opening={"opening": opening(matrices)},
        uses=used(adds.piece, adds.stream, adds.batches(), window),
    )


def activations(spec: WhisperSpec, seconds: float) -> float:
    """Bytes of what is alive in the encoder while it runs over a piece of so many seconds."""
    speech = constants("speech")
    frames = encoded_frames(spec, seconds + LEAD_SECONDS, KEYS_TOGETHER)
    scores = (min(_HEADS_AT_ONCE, spec.encoder_heads) + 1) * frames**2 * FLOAT
    return speech["scores"] * scores + speech["rows"] * frames * spec.width * FLOAT


@dataclass(frozen=True, slots=True)
class _Adds:
    """What each use adds. `looked_up` are the bytes of the embedding that are mapped in by looking tokens up."""

    spec: WhisperSpec
    looked_up: int

    def piece(self, seconds: float) -> Parts:
        """A recording of one piece."""
        return self._parts(seconds, activations(self.spec, seconds))

    def stream(self, window: float) -> Parts:
        """Audio of ever different length: what onnxruntime took for one does not fit the next, and is kept."""
        return self._parts(window, constants("speech")["lengths"] * activations(self.spec, window))

    def batches(self) -> Parts:
        """A recording of many pieces, as many decoded together as the transcriber has memory for."""
        rows = rows_together(self.spec)
        frames = encoded_frames(self.spec, PIECE_SECONDS + LEAD_SECONDS, KEYS_TOGETHER)
        stacked = constants("speech")["stacked"] * rows * cross_bytes(self.spec, frames) if rows > 1 else 0
        return self._parts(PIECE_SECONDS, activations(self.spec, PIECE_SECONDS) + stacked, rows)

    def _parts(self, seconds: float, active: float, rows: int = 1) -> Parts:
        speech = constants("speech")
        return {
            "activations": round(active),
            "past": rows * past_bytes(self.spec, seconds),
            "running": round(speech["running"] + self.looked_up),
            "audio": round(speech["audio"] * rows * seconds * RATE * FLOAT),
        }
