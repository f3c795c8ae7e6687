"""What the compressed silence is for, on real weights and real speech."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sottovoce.tokens import TokenTable
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.linear import FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import load_samples
from sottovoce_compiler.sources import Array, Checkpoint, resolve

from ...whisper_case import Lowered, lower

pytestmark = pytest.mark.weights

FP32 = Recipe(FloatLinear(), FloatLinear(), FloatLinear(), half_tables=False)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return resolve("whisper-tiny.en")


@pytest.fixture(scope="module")
def lowered(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower(checkpoint, FP32, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return load_samples(builtin_set().clips[3].file)


def prompt(lowered: Lowered, checkpoint: Checkpoint) -> list[int]:
    tokens = lowered.spec.tokens
    table = TokenTable([t.encode() if isinstance(t, str) else t for t in checkpoint.vocabulary], tokens.end)
    return [tokens.start, tokens.no_timestamps, *table.encode(" " + builtin_set().clips[3].text)]


def log_probabilities(lowered: Lowered, samples: np.ndarray, tokens: list[int]) -> np.ndarray:
    logits = lowered.decode(lowered.encode(samples), [tokens])["logits"][0].astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(true: np.ndarray, found: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence in nats a token; the start token's answer, which is never used, left out."""
    return float((np.exp(true) * (true - found)).sum(axis=-1)[1:].mean())


def test_compressed_silence_keeps_the_predictions_and_cutting_does_not(
    checkpoint: Checkpoint, lowered: Lowered, samples: np.ndarray, tmp_path: Path
) -> None:
    tokens = prompt(lowered, checkpoint)
    full = log_probabilities(lowered, np.pad(samples, (0, 480_000 - samples.size)), tokens)
    short = log_probabilities(lowered, samples, tokens)
    cut = log_probabilities(_cut(checkpoint, -(-samples.size // 320) + MARGIN_FRAMES, tmp_path), samples, tokens)
    assert divergence(full, short) < 0.01
    assert divergence(full, cut) > 10 * divergence(full, short)
    assert (full.argmax(-1) == short.argmax(-1)).mean() > 0.9


def test_at_full_context_real_logits_are_transformers_own(
    checkpoint: Checkpoint, lowered: Lowered, samples: np.ndarray
) -> None:
    import torch

    tokens = prompt(lowered, checkpoint)
    parts = SourceModel(checkpoint).load()
    with torch.inference_mode():
        features = parts.extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        wanted = parts.model(features, decoder_input_ids=torch.tensor([tokens])).logits[0].numpy()
    padded = np.pad(samples, (0, 480_000 - samples.size))
    found = lowered.decode(lowered.encode(padded), [tokens])["logits"][0]
    assert np.abs(wanted).max() > 10
    np.testing.assert_allclose(found, wanted, atol=1e-3)  # 1e-4 of the largest
    assert np.abs(found - wanted).mean() < 1e-4


def _cut(checkpoint: Checkpoint, frames: int, folder: Path) -> Lowered:
    """The same model with no more positions than the audio has: the plain way to a short context."""
    name = "model.encoder.embed_positions.weight"

    class Cut:
        def names(self) -> list[str]:
            return checkpoint.tensors.names()

        def shape(self, asked: str) -> tuple[int, ...]:
            return checkpoint.tensors.shape(asked)

        def load(self, asked: str) -> Array:
            return checkpoint.tensors.load(asked)[: frames if asked == name else None]

    spec = replace(whisper_spec(checkpoint), n_audio_ctx=frames)
    return lower(replace(checkpoint, tensors=Cut()), FP32, folder, spec)
