"""Whisper's log-mel spectrogram in torch, of a recording and the silence that the device puts behind it.

The same numbers as the front end in the compiled encoder (`lowerings/onnx/mel.py`, where the definition is cited), and
as transformers' extractor over 30 s. Knows samples and frames; knows no model.
"""

from functools import cache

import torch
from torch.nn import functional

from sottovoce_compiler.finetune.batches import LogMel
from sottovoce_compiler.lowerings.onnx.mel import HOP, N_FFT, mel_filters
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, SAMPLES_PER_FRAME

SPARE_FRAMES = 2  # silence run through the convolutions beyond the context, so that its last frame has what follows it


def log_mel(samples: torch.Tensor, n_mels: int, window: int, *, full_window: bool = False) -> LogMel:
    """`samples` (n,) float32 at 16 kHz, of which at most `window` frames of 20 ms are heard.

    The context is the audio and half a second of silence; with `full_window` all of `window`, as Whisper was trained.
    """
    samples = samples[: window * SAMPLES_PER_FRAME].float()
    context = window if full_window else context_frames(len(samples), window)
    padded = functional.pad(samples, (0, (context + SPARE_FRAMES) * SAMPLES_PER_FRAME - len(samples)))
    spectrum = torch.stft(padded, N_FFT, HOP, window=_hann(samples.device), pad_mode="reflect", return_complex=True)
    power = spectrum[:, :-1].abs().square()
    decades = (_filters(n_mels, samples.device) @ power).clamp(min=1e-10).log10()
    # Nothing follows the last frame of the longest context: its convolutions are padded there, as in training.
    decades = decades[:, : 2 * window]
    return LogMel((torch.maximum(decades, decades.max() - 8.0) + 4.0) / 4.0, context)


def context_frames(samples: int, window: int) -> int:
    """Frames of 20 ms that are heard as they are: those of the audio and the margin, at most `window`."""
    return min(-(-samples // SAMPLES_PER_FRAME) + MARGIN_FRAMES, window)


@cache
def _filters(n_mels: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(mel_filters(n_mels)[0]).to(device)


@cache
def _hann(device: torch.device) -> torch.Tensor:
    return torch.hann_window(N_FFT, device=device)
