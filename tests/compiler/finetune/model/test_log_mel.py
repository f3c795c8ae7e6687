"""The front end in torch against transformers' extractor, and against the one in the compiled encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce_compiler.finetune.model.log_mel import SPARE_FRAMES, context_frames, log_mel

from ...lowerings.onnx.test_mel import run_mel
from ...whisper_case import sweep


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.05, 3.3, 30.0])
def test_over_the_full_window_it_is_transformers_extractor(seconds: float, mels: int) -> None:
    from transformers import WhisperFeatureExtractor

    samples = sweep(seconds)
    expected = WhisperFeatureExtractor(feature_size=mels)(samples, sampling_rate=16_000, return_tensors="pt")
    found = log_mel(torch.from_numpy(samples), mels, 1500, full_window=True)
    assert found.values.shape == (mels, 3000)
    # Behind audio that fills the window transformers reflects; silence follows here, as in the published code.
    inner = slice(0, 2998)
    torch.testing.assert_close(found.values[:, inner], expected.input_features[0][:, inner], atol=2e-5, rtol=0)


def test_it_is_the_compiled_front_end(tmp_path: Path) -> None:
    """Both sum 400 products in float32, in another order: 1e-5 of the loudest counts most near the floor."""
    samples = np.concatenate([sweep(1.7), np.zeros(50, np.float32)])
    found = log_mel(torch.from_numpy(samples), 80, 1500)
    padded = np.pad(samples, (0, (found.context + SPARE_FRAMES) * 320 - samples.size))
    difference = np.abs(found.values.numpy() - run_mel(tmp_path, padded, 80))
    assert difference.max() < 1e-2
    assert difference.mean() < 1e-4


def test_the_context_is_the_audio_and_half_a_second_at_most_the_window() -> None:
    assert context_frames(1, 1500) == 1 + 25
    assert context_frames(320 * 100, 1500) == 125
    assert context_frames(320 * 1490, 1500) == 1500


def test_what_is_beyond_the_window_is_not_heard() -> None:
    samples = torch.from_numpy(sweep(31))
    long, short = log_mel(samples, 80, 1500), log_mel(samples[: 30 * 16_000], 80, 1500)
    assert torch.equal(long.values, short.values)
