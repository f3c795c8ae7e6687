"""Changes the sample rate of one channel: windowed-sinc interpolation, evaluated polyphase, in NumPy alone.

Knows rates and samples. Knows nothing of files, channels or speech. The kernel is a Kaiser-windowed sinc (J.
F. Kaiser, "Nonrecursive digital filter design using the I0-sinh window function", 1974): flat to 0.9 of the
lower of the two Nyquist frequencies, at least 90 dB down from 1.0 of it on.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

STOP_BAND_DB = 100.0  # asked of the window; 90 is promised
PASS_EDGE, STOP_EDGE = 0.9, 1.0  # as fractions of the lower Nyquist frequency
KAISER_BETA = 0.1102 * (STOP_BAND_DB - 8.7)
# Half the kernel's width, in samples of the lower rate (Kaiser's estimate of a filter's order, halved).
ZERO_CROSSINGS = (STOP_BAND_DB - 7.95) / (2.285 * math.pi * (STOP_EDGE - PASS_EDGE)) / 2
MAX_MATRIX = 4_000_000  # weights, 16 MB: above it the phases are interpolated instead of tabulated
PHASES = 512  # a sample: linear interpolation between phases is then wrong by (pi / 512)^2 / 8 = -106 dB
BLOCK = 1 << 20  # numbers gathered at a time, 4 MB


def resample(samples: Samples, rate_in: int, rate_out: int) -> Samples:
    """Samples (n,) float32 at `rate_in` Hz -> (ceil(n * rate_out / rate_in),) float32 at `rate_out` Hz."""
    resampler = Resampler(rate_in, rate_out)
    pieces = [resampler.push(samples[start : start + BLOCK]) for start in range(0, len(samples), BLOCK)]
    return np.concatenate([*pieces, resampler.finish()])


class Resampler:
    """The same for audio that arrives in pieces; what is put out, joined, is `resample` of all put in.

    Holds no more than the kernel's width and one period of the two rates between calls.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        divisor = math.gcd(rate_in, rate_out)
        self._up, self._down = rate_out // divisor, rate_in // divisor
        self._kernel = _kernel(self._up, self._down) if self._up != self._down else None
        self._received = 0
        self._made = 0
        half = self._kernel.half if self._kernel else 0
        self._pending: Samples = np.zeros(half, np.float32)  # what came before the first sample: silence

    def push(self, samples: Samples) -> Samples:
        """Takes samples (n,) float32; returns (m,) float32, what does not depend on samples still to come."""
        self._received += len(samples)
        if self._kernel is None:
            return samples
        self._pending = np.concatenate([self._pending, samples])
        return self._make(self._kernel.ready(self._received) - self._made)

    def finish(self) -> Samples:
        """Returns the rest (m,) float32; in all, ceil(received * rate_out / rate_in) samples were put out."""
        if self._kernel is None:
            return np.zeros(0, np.float32)
        missing = -(-self._received * self._up // self._down) - self._made
        whole = -(-missing // self._kernel.step) * self._kernel.step
        end = (self._made + whole) * self._down // self._up + 1 + self._kernel.half
        self._pending = np.concatenate([self._pending, np.zeros(max(0, end - self._received), np.float32)])
        return self._make(whole)[:missing]

    def _make(self, count: int) -> Samples:
        """The next `count` outputs; then forgets the input that no later output needs."""
        kernel = self._kernel
        assert kernel is not None
        if count <= 0:
            return np.zeros(0, np.float32)
        made = kernel.apply(self._pending, self._made, count)
        used = (self._made + count) * self._down // self._up - self._made * self._down // self._up
        self._made += count
        self._pending = self._pending[used:].copy()
        return made


class _Kernel(Protocol):
    @property
    def half(self) -> int:
        """Input samples on either side of an output that it depends on."""
        ...

    @property
    def step(self) -> int:
        """Outputs are made in multiples of this."""
        ...

    def ready(self, received: int) -> int:
        """How many outputs, from the start, depend only on the first `received` inputs."""
        ...

    def apply(self, pending: Samples, first: int, count: int) -> Samples:
        """Outputs first to first + count; pending[0] is `half` samples before the place of output `first`."""
        ...


@dataclass(frozen=True)
class _Tabulated:
    """Every phase of a short period as a column of one matrix, so that BLAS does the work.

    A frame of `span + 2 * half` inputs gives `step` outputs; frames advance by `span`. About half of the
    matrix is zeros, and it is still several times faster than gathering each phase's taps.
    """

    half: int
    step: int
    span: int
    matrix: Samples  # (span + 2 * half, step)

    def ready(self, received: int) -> int:
        return max(0, (received - self.half) // self.span) * self.step

    def apply(self, pending: Samples, first: int, count: int) -> Samples:
        frames = sliding_window_view(pending, len(self.matrix))[:: self.span]
        groups = count // self.step
        made = np.empty((groups, self.step), np.float32)
        rows = max(1, BLOCK // len(self.matrix))
        for start in range(0, groups, rows):
            stop = min(start + rows, groups)
            np.matmul(np.ascontiguousarray(frames[start:stop]), self.matrix, out=made[start:stop])
        return made.reshape(-1)


@dataclass(frozen=True)
class _Interpolated:
    """For rates with almost no common divisor (44,101 Hz): linear interpolation between tabulated phases."""

    half: int
    up: int
    down: int
    table: Samples  # (phases + 1, 2 * half), row p: an output p / phases of a sample after an input
    step: int = 1

    def ready(self, received: int) -> int:
        return max(0, -(-(received - self.half) * self.up // self.down))

    def apply(self, pending: Samples, first: int, count: int) -> Samples:
        width = self.table.shape[1]
        windows = sliding_window_view(pending[1:], width)
        origin = first * self.down // self.up
        made = np.empty(count, np.float32)
        rows = max(1, BLOCK // width)
        for start in range(0, count, rows):
            outputs = np.arange(first + start, first + min(start + rows, count), dtype=np.int64)
            place, rest = np.divmod(outputs * self.down, self.up)
            phase = rest * ((len(self.table) - 1) / self.up)
            row = phase.astype(np.int64)
            window = windows[place - origin]
            low = np.einsum("nt,nt->n", window, self.table[row])
            high = np.einsum("nt,nt->n", window, self.table[row + 1])
            made[start : start + len(outputs)] = low + (phase - row) * (high - low)
        return made


@lru_cache(maxsize=4)
def _kernel(up: int, down: int) -> _Kernel:
    """The cheaper of the two kernels for a ratio of up : down in lowest terms."""
    scale = min(1.0, up / down)
    half = math.ceil(ZERO_CROSSINGS / scale)
    periods = max(1, round(2 * half / down))
    span, step = periods * down, periods * up
    if (span + 2 * half) * step <= MAX_MATRIX:
        offsets = np.arange(span + 2 * half)[:, None] - half - np.arange(step)[None, :] * (down / up)
        weights = _windowed_sinc(offsets, half, scale)
        return _Tabulated(half, step, span, _unit_gain(weights, axis=0))
    phases = max(16, math.ceil(PHASES * scale))
    offsets = np.arange(1 - half, half + 1)[None, :] - np.arange(phases + 1)[:, None] / phases
    return _Interpolated(half, up, down, _unit_gain(_windowed_sinc(offsets, half, scale), axis=1))


def _windowed_sinc(offsets: NDArray[np.float64], half: int, scale: float) -> NDArray[np.float64]:
    """The kernel at distances in input samples; `scale` is the lower rate over the input's."""
    cutoff = scale * (PASS_EDGE + STOP_EDGE) / 2
    inside = np.abs(offsets) <= half
    distance = offsets[inside]
    window = np.i0(KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (distance / half) ** 2))) / np.i0(KAISER_BETA)
    weights = np.zeros(offsets.shape)
    weights[inside] = cutoff * np.sinc(cutoff * distance) * window
    return weights


def _unit_gain(weights: NDArray[np.float64], axis: int) -> Samples:
    """Scales each phase to a gain of exactly 1 at 0 Hz, so that a constant stays that constant."""
    return np.ascontiguousarray(weights / weights.sum(axis=axis, keepdims=True), dtype=np.float32)
