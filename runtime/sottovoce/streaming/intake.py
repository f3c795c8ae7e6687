"""Whatever a source hands over, as mono float32 at 16 kHz.

Knows chunks, rates and what is wrong with samples; keeps nothing but the resampler's few. Knows nothing of speech.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.audio import MAX_LEVEL, MAX_RATE, MIN_RATE, mono, scaled
from sottovoce.errors import AudioError
from sottovoce.resample import Resampler
from sottovoce.streaming.chunks import AudioChunk
from sottovoce.vad import SAMPLE_RATE
from sottovoce.wav import MAX_CHANNELS

_BLOCK = 1 << 16  # samples converted at a time: a chunk of any length costs no more memory than this beside it

Float = NDArray[np.float32]


class Intake:
    """Converts one stream's chunks; `sample_rate` (Hz) is that of plain arrays."""

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self._default = _checked_rate(sample_rate)
        self._rate = self._default
        self._resampler = Resampler(self._rate, SAMPLE_RATE)
        self._seconds = 0.0

    def blocks(self, chunk: NDArray[Any] | AudioChunk) -> Iterator[Float]:
        """Samples (n,) float32 at 16 kHz, in pieces; where the rate changes, what the old one still held comes first.

        Raises AudioError for audio of a wrong shape, type, rate or level, and for samples that are not finite, each
        with its place in the stream; what came before the fault has been handed over.
        """
        samples, rate = (chunk.samples, chunk.sample_rate) if isinstance(chunk, AudioChunk) else (chunk, self._default)
        if not isinstance(samples, np.ndarray):
            raise AudioError(
                f"a chunk of type {type(samples).__name__}; needed is a NumPy array, AudioChunk or AudioGap"
            )
        if not samples.ndim:
            raise _misshapen(samples)
        if rate != self._rate:
            rest = self._change_rate(_checked_rate(rate))
            if rest.size:
                yield rest
        for start in range(0, len(samples), _BLOCK):
            block = _one_channel(scaled(samples[start : start + _BLOCK]))
            sound = block[: _numbers(block)]
            self._check_level(sound)
            self._seconds += sound.size / self._rate
            yield self._resampler.push(sound)
            if sound.size < block.size:
                bad = block[sound.size]
                raise AudioError(f"a sample that is no finite number ({bad}) at {self._seconds:.3f} s of the stream")

    def finish(self) -> Float:
        """What the resampler still holds; the next chunk starts anew."""
        return self._change_rate(self._rate)

    def _change_rate(self, rate: int) -> Float:
        rest = self._resampler.finish()
        self._rate, self._resampler = rate, Resampler(rate, SAMPLE_RATE)
        return rest

    def _check_level(self, block: Float) -> None:
        level = float(np.abs(block).max(initial=0.0))
        if level > MAX_LEVEL:
            raise AudioError(
                f"samples of up to {level:.4g} at {self._seconds:.3f} s of the stream, where floats are "
                "expected within -1..1; divide by full scale (32768 for 16 bits)"
            )


def _numbers(block: Float) -> int:
    """How many samples come before the first that is no finite number."""
    finite = np.isfinite(block)
    return block.size if finite.all() else int(np.argmin(finite))


def _checked_rate(rate: object) -> int:
    if not isinstance(rate, int | np.integer) or isinstance(rate, bool) or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"a sample rate of {rate!r}; {MIN_RATE} to {MAX_RATE} Hz can be used")
    return int(rate)


def _one_channel(samples: Float) -> Float:
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise _misshapen(samples)
    return mono(samples)


def _misshapen(samples: NDArray[Any]) -> AudioError:
    return AudioError(f"a chunk of shape {samples.shape}; (samples,) or (samples, channels) is needed")
