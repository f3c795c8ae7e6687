"""The training model as the runtime's engine: steps against one pass, rows against each other, forks and orders."""

import numpy as np
import pytest
import torch

from sottovoce_compiler.finetune.model.adapted import Lora, attach_all
from sottovoce_compiler.finetune.model.whisper import WhisperTraining
from sottovoce_compiler.finetune.model.whisper_engine import TorchWhisper

from ...whisper_case import random_model
from .whisper_training_case import SHORT, TEXTS, batch, logits, recordings, training

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model() -> WhisperTraining:
    """With an adapter that changes it."""
    ours = training(random_model(SHORT), SHORT)
    attach_all(ours.linears(), Lora(4, 6.0))
    for layer in ours.adapted().values():
        assert layer.lora_b is not None
        torch.nn.init.normal_(layer.lora_b, std=0.1)
    return ours


def test_token_by_token_it_is_one_forward_pass(model: WhisperTraining) -> None:
    expected = logits(model, batch(recordings()[:1], TEXTS[:1], window=150))[0].detach().numpy()
    rows = TorchWhisper(model).start(recordings()[:1], 100)
    text = np.array([TEXTS[0]], np.int64)
    np.testing.assert_allclose(rows.run(text[:, :4], [0, 3])[0], expected[[0, 3]], **CLOSE)
    for at in range(4, text.shape[1]):
        np.testing.assert_allclose(rows.run(text[:, at : at + 1], [0])[0, 0], expected[at], **CLOSE)


def test_rows_are_as_if_alone(model: WhisperTraining) -> None:
    engine, text = TorchWhisper(model), np.array([TEXTS[1]], np.int64)
    together = engine.start(recordings(), 100).run(text.repeat(3, 0), [2, 5])
    for row, sound in enumerate(recordings()):
        np.testing.assert_allclose(together[row], engine.start([sound], 100).run(text, [2, 5])[0], **CLOSE)


def test_forks_orders_and_new_starts_keep_what_they_should(model: WhisperTraining) -> None:
    rows = TorchWhisper(model).start(recordings(), 100)
    text = np.array([TEXTS[0][:6], TEXTS[2][:6], TEXTS[0][:6]], np.int64)
    first = rows.run(text, [5])
    step = np.full((3, 1), 70, np.int64)
    forked = rows.fork([2, 0], past=True)
    assert forked.rows == 2
    fresh = rows.fork([1], past=False)
    after = rows.run(step, [0])
    np.testing.assert_allclose(forked.run(step[:2], [0]), after[[2, 0]], **CLOSE)
    np.testing.assert_allclose(fresh.run(text[1:2], [5])[0], first[1], **CLOSE)
    rows.restart()
    np.testing.assert_allclose(rows.run(text, [5]), first, **CLOSE)
    same = TorchWhisper(model).start(recordings()[:1] * 2, 100)
    same.run(text[:2], [5])
    same.reorder([1, 0])
    swapped = same.run(step[:2], [0])
    again = TorchWhisper(model).start(recordings()[:1] * 2, 100)
    again.run(text[[1, 0]], [5])
    np.testing.assert_allclose(swapped, again.run(step[:2], [0]), **CLOSE)


def test_words_are_not_timed_here(model: WhisperTraining) -> None:
    with pytest.raises(NotImplementedError, match="word_timestamps"):
        TorchWhisper(model).start(recordings()[:1], 100).alignment()
