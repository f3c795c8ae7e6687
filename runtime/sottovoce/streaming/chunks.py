"""What a source of live audio hands over: arrays as they are, audio with its own rate, or word of a gap."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Samples (n,) or (n, channels), floats within -1..1 or int16, int32 or uint8, at `sample_rate` Hz, which may
    differ from chunk to chunk."""

    samples: NDArray[Any]
    sample_rate: int


@dataclass(frozen=True, slots=True)
class AudioGap:
    """`seconds` of audio that were lost here."""

    seconds: float


Chunk = NDArray[Any] | AudioChunk | AudioGap
