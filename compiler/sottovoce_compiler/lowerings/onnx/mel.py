"""Whisper's log-mel spectrogram as graph nodes, so that a device needs no audio code.

The short-time Fourier transform is a convolution with a windowed Fourier basis: at 400 points that is as fast as an FFT
here, and runs on every ONNX engine. Definition: Radford et al. 2022, section 2.2 (25 ms Hann windows every 10 ms,
power, mel scale of Slaney 1998, log10 clipped 8 decades below the loudest, scaled to about [-1, 1]).
"""

import math

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.onnx.graph import Graph

SAMPLE_RATE = 16_000  # Hz
N_FFT = 400  # samples in a window, 25 ms
HOP = 160  # samples between windows, 10 ms
SPECTRUM_BINS = N_FFT // 2 + 1


def log_mel(g: Graph, audio: str, n_mels: int) -> str:
    """(1, n) float32 samples, n a multiple of 160 -> (1, mels, n / 160) float32."""
    half = N_FFT // 2
    # The reference centres windows by reflection at both ends; silence follows here, where reflection equals zeros.
    start = g.op("Pad", audio, g.constant([0, half, 0, 0]), mode="reflect")
    padded = g.op("Pad", start, g.constant([0, 0, 0, half - HOP]))
    basis = g.weight("mel.fourier", fourier_basis())
    spectrum = g.op("Conv", g.op("Unsqueeze", padded, g.constant([1])), basis, strides=[HOP], kernel_shape=[N_FFT])
    squared = g.op("Mul", spectrum, spectrum)
    real, imaginary = g.multi("Split", squared, outs=2, axis=1, num_outputs=2)
    mel = g.op("MatMul", g.weight("mel.filters", mel_filters(n_mels)), g.op("Add", real, imaginary))
    logged = g.op("Log", g.op("Max", mel, g.constant(1e-10, np.float32)))
    decades = g.op("Mul", logged, g.constant(1 / math.log(10), np.float32))
    loudest = g.op("ReduceMax", decades, g.constant([1, 2]), keepdims=1)
    clipped = g.op("Max", decades, g.op("Sub", loudest, g.constant(8, np.float32)))
    return g.op("Mul", g.op("Add", clipped, g.constant(4, np.float32)), g.constant(0.25, np.float32))


def fourier_basis() -> NDArray[np.float32]:
    """(2 * 201, 1, 400): cosines, then sines, each times the periodic Hann window."""
    n = np.arange(N_FFT)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
    angle = 2 * np.pi * np.outer(np.arange(SPECTRUM_BINS), n) / N_FFT
    basis = np.concatenate([np.cos(angle), np.sin(angle)]) * window
    return basis[:, None, :].astype(np.float32)


def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """(1, mels, 201): triangles on the Slaney mel scale up to 8 kHz, each of unit area per hertz."""
    edges = _mel_to_hz(np.linspace(_hz_to_mel(0.0), _hz_to_mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, SPECTRUM_BINS)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return triangles[None].astype(np.float32)


# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz at 200/3 Hz a mel, then 27 mels to a factor of 6.4.
_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _BREAK_HZ / _LINEAR_HZ
    return np.where(mel < knee, mel * _LINEAR_HZ, _BREAK_HZ * np.exp((mel - knee) * _LOG_STEP))
