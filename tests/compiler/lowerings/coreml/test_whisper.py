"""The three packages against transformers' own Whisper, evaluated from their files, on random models of odd shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce.engines.coreml_speech import CoreMLBatch, CoreMLSpeech
from sottovoce.engines.shapes import SpeechShape
from sottovoce_compiler.families.whisper import whisper_spec

from ...coreml_case import speech_models, speech_packages
from ...whisper_case import CONFIG, checkpoint_of, random_model, reference_run, sweep

TOKENS = [257, 258, 262, 5, 66, 7, 100]
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "128 mels, more layers here than there": {"num_mel_bins": 128, "encoder_layers": 3, "decoder_layers": 1},
    "heads that differ": {"d_model": 96, "encoder_attention_heads": 6, "decoder_attention_heads": 3},
}


class Engine:
    """The engine over packages in a folder."""

    def __init__(self, model: Any, config: Mapping[str, Any], precision: str, folder: Path) -> None:
        checkpoint = checkpoint_of(model, config)
        spec = whisper_spec(checkpoint)
        packages = speech_packages(checkpoint, spec, precision, folder)
        shape = SpeechShape.of(spec.model_json(), spec.audio_json())
        self.engine = CoreMLSpeech(shape, lambda: speech_models(packages), "random")

    def start(self, *clips: np.ndarray) -> CoreMLBatch:
        return self.engine.start(clips, 64)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model()


@pytest.fixture(scope="module")
def plain(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(model, CONFIG, "fp16", tmp_path_factory.mktemp("fp16"))


@pytest.mark.parametrize("name", SHAPES)
def test_over_cached_steps_the_logits_are_transformers_own(name: str, tmp_path: Path) -> None:
    """To the rounding of float16: a few thousandths of logits of some units, and the same likeliest token."""
    config = {**CONFIG, **SHAPES[name]}
    model = random_model(config)
    samples = sweep(30.0)
    wanted = reference_run(model, samples, [TOKENS])
    batch = Engine(model, config, "fp16", tmp_path).start(samples)
    found = np.concatenate([batch.run(np.array([[token]], np.int64), [0])[0] for token in TOKENS])
    logits = wanted.logits[0].numpy()
    assert np.abs(found - logits).max() < 0.02 * np.abs(logits).max()
    assert (found.argmax(axis=-1) == logits.argmax(axis=-1)).all()


def test_the_alignment_is_the_mean_of_the_heads_that_follow_the_audio(model: Any, plain: Engine) -> None:
    samples = sweep(30.0)
    spec = whisper_spec(checkpoint_of(model))
    attentions = [layer.numpy() for layer in reference_run(model, samples, [TOKENS]).cross_attentions]
    batch = plain.start(samples)
    batch.run(np.array([TOKENS], np.int64), [0])
    wanted = np.mean([attentions[layer][0, head] for layer, head in spec.alignment_heads], axis=0)
    assert batch.alignment().shape == (1, 1, len(TOKENS), 1500)
    assert np.abs(batch.alignment()[0, 0] - wanted).max() < 2e-3


def test_tokens_fed_together_or_one_by_one_or_after_a_restart_give_the_same(plain: Engine) -> None:
    batch = plain.start(sweep(3.0))
    together = batch.run(np.array([TOKENS], np.int64), [2, len(TOKENS) - 1])
    batch.restart()
    apart = [batch.run(np.array([[token]], np.int64), [0])[0, 0] for token in TOKENS]
    assert (together[0] == np.stack([apart[2], apart[-1]])).all()


def test_rows_have_their_own_audio_and_past(plain: Engine) -> None:
    first, second = sweep(3.0), 0.1 * sweep(2.0)[::-1].copy()
    both = plain.start(first, second)
    found = both.run(np.array([TOKENS[:4], TOKENS[:4]], np.int64), [3])
    alone = plain.start(second).run(np.array([TOKENS[:4]], np.int64), [3])
    assert (found[1] == alone[0]).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3
    forked = both.fork([1, 1], past=True)
    forked.run(np.array([[5], [66]], np.int64), [0])
    forked.reorder([1, 0])
    after = forked.run(np.array([[7], [7]], np.int64), [0])
    again = plain.start(second)
    again.run(np.array([[*TOKENS[:4], 66]], np.int64), [0])
    assert (after[0] == again.run(np.array([[7]], np.int64), [0])[0]).all()


@pytest.mark.parametrize(("precision", "allowed"), [("int8", 0.05), ("pal6", 0.15), ("pal4", 0.6), ("int4", 0.6)])
def test_fewer_bits_lose_as_much_as_they_may(
    precision: str, allowed: float, model: Any, plain: Engine, tmp_path: Path
) -> None:
    """Random weights are the hardest to round: what is shown is that the right values came back."""
    samples = sweep(5.0)
    tokens = np.array([TOKENS], np.int64)
    wanted = plain.start(samples).run(tokens, range(len(TOKENS)))
    found = Engine(model, CONFIG, precision, tmp_path).start(samples).run(tokens, range(len(TOKENS)))
    assert np.sqrt(np.mean((found - wanted) ** 2)) < allowed * wanted.std()


def test_two_conversions_give_the_same_bytes(model: Any, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(model)
    spec = whisper_spec(checkpoint)
    made = [speech_packages(checkpoint, spec, "int8", tmp_path / name) for name in ("first", "second")]
    files = [sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file()) for one in made]
    assert files[0] == files[1]
    assert len(files[0]) == 9
    for name in files[0]:
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes(), name
