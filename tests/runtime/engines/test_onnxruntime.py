"""The engine over real bundles: fp32 and random for what must be equal, int8 and real for what may round."""

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce.bundle import Bundle, open_bundle
from sottovoce.engines.onnxruntime import OnnxWhisper
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError, EngineError

FED = np.array([[50258, 50259, 50359, 50363, 300, 4000, 27, 511]], np.int64)
# fp32 over other shapes adds in another order; logits here are of size 1 to 10.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-4}


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


@pytest.fixture(scope="module")
def engine(random_bundle: Path) -> Iterator[OnnxWhisper]:
    engine = OnnxWhisper(open_bundle(random_bundle), 2)
    engine.load()
    yield engine
    engine.close()


@pytest.mark.parametrize("splits", [[1] * 8, [3, 5], [4, 1, 3]])
def test_a_prompt_in_steps_gives_the_logits_of_the_prompt_at_once(engine: OnnxWhisper, splits: list[int]) -> None:
    whole = engine.start([clip(2)], 20).run(FED, list(range(8)))[0].copy()
    batch, parts = engine.start([clip(2)], 20), []
    for part in np.split(FED, np.cumsum(splits)[:-1], axis=1):
        parts.append(batch.run(part, list(range(part.shape[1])))[0].copy())
    np.testing.assert_allclose(np.concatenate(parts), whole, **CLOSE)
    assert np.abs(np.diff(whole, axis=0)).mean() > 0.1, "every token changes the logits"


def test_logits_come_for_the_positions_asked_for_in_their_order(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(1)], 20)
    whole = batch.run(FED, list(range(8))).copy()
    batch.restart()
    np.testing.assert_allclose(batch.run(FED, [7, 0]), whole[:, [7, 0]], **CLOSE)


SECONDS = [0.4, 3.1, 3.11, 1.0, 29.0]


def test_rows_of_different_lengths_hear_what_each_hears_alone(engine: OnnxWhisper) -> None:
    clips = [clip(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    rows = np.stack([np.roll(FED[0], row) for row in range(len(clips))])
    batch = engine.start(clips, 20)
    together, attention = batch.run(rows, [0, 7]).copy(), batch.alignment().copy()
    for row, samples in enumerate(clips):
        alone = engine.start([samples], 20)
        np.testing.assert_allclose(together[row], alone.run(rows[row : row + 1], [0, 7])[0], **CLOSE)
        keys = alone.alignment().shape[-1]
        np.testing.assert_allclose(attention[row, ..., :keys], alone.alignment()[0], **CLOSE)
        assert (attention[row, ..., keys:] < 1e-12).all(), "what a shorter row does not have is not heard"
    assert np.abs(together[0] - together[1]).mean() > 0.1


def test_audio_changes_the_logits(engine: OnnxWhisper) -> None:
    first, second = (engine.start([clip(2, seed)], 20).run(FED, [7]).copy() for seed in (0, 1))
    assert np.abs(first - second).mean() > 0.01


def test_attention_is_a_share_of_all_keys_with_the_audio_first(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(2)], 20)
    batch.run(FED, [0])
    attention = batch.alignment()
    assert attention.shape[:3] == (1, open_heads(engine), 8) and attention.shape[-1] > 100
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-4)


def open_heads(engine: OnnxWhisper) -> int:
    return int(engine._bundle.manifest.model["alignment_heads"])


def test_a_restart_forgets_the_tokens_and_keeps_the_audio(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(2)], 20)
    first = batch.run(FED, [7]).copy()
    batch.run(FED[:, :3] + 1, [0])
    batch.restart()
    assert batch.length == 0
    np.testing.assert_array_equal(batch.run(FED, [7]), first)


@pytest.mark.parametrize("picked", [[1], [2, 0], [1, 1, 1], [0, 1, 2], [2, 2, 0, 1]])
def test_a_fork_has_the_audio_and_the_past_of_the_rows_it_names(engine: OnnxWhisper, picked: list[int]) -> None:
    clips = [clip(seconds, seed) for seed, seconds in enumerate((1.0, 2.5, 0.7))]
    rows = np.stack([np.roll(FED[0], row) for row in range(3)])
    batch = engine.start(clips, 20)
    batch.run(rows, [7])
    fork = batch.fork(picked, past=True)
    assert (fork.rows, fork.length) == (len(picked), 8)
    step = np.arange(3)[:, None] + 600
    forked = fork.run(step[picked], [0]).copy()
    np.testing.assert_allclose(forked, batch.run(step, [0])[picked], **CLOSE)
    again = batch.fork(picked, past=False)
    assert again.length == 0
    fresh = again.run(rows[picked], [7]).copy()
    batch.restart()
    np.testing.assert_allclose(fresh, batch.run(rows, [7])[picked], **CLOSE)


def test_a_fork_and_its_parent_do_not_write_into_each_other(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(1)], 20)
    batch.run(FED, [7])
    fork = batch.fork([0, 0], past=True)
    forked = fork.run(np.array([[5], [6]], np.int64), [0]).copy()
    batch.run(np.array([[900]], np.int64), [0])
    other = batch.fork([0, 0], past=False)
    other.run(np.concatenate([FED, FED]) + 7, [0])
    step = np.array([[8], [9]], np.int64)
    expected = engine.start([clip(1)], 20)
    expected.run(np.concatenate([FED, [[5]]], axis=1), [0])
    np.testing.assert_allclose(fork.run(step, [0])[0], expected.run(step[:1], [0])[0], **CLOSE)
    assert not np.allclose(forked[0], forked[1])


@pytest.mark.parametrize("parents", [[0, 1, 2], [2, 1, 0], [0, 0, 0], [1, 2, 2]])
def test_reordered_beams_go_on_from_their_parents_past(engine: OnnxWhisper, parents: list[int]) -> None:
    pasts = np.stack([np.roll(FED[0], row) for row in range(3)])
    beams = engine.start([clip(1.5)], 20).fork([0, 0, 0], past=False)
    beams.run(pasts, [7])
    beams.reorder(parents)
    found = beams.run(np.array([[600], [601], [602]], np.int64), [0])
    for row, parent in enumerate(parents):
        alone = engine.start([clip(1.5)], 20)
        alone.run(pasts[parent : parent + 1], [0])
        np.testing.assert_allclose(found[row], alone.run(np.array([[600 + row]], np.int64), [0])[0], **CLOSE)


def test_more_tokens_than_there_is_room_for_are_refused_and_nothing_is_written(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(1)], 9)
    first = batch.run(FED, [7]).copy()
    with pytest.raises(EngineError, match=r"8 \+ 2 tokens exceed the capacity of 9"):
        batch.run(FED[:, :2], [0])
    assert batch.length == 8
    batch.run(FED[:, :1], [0])
    batch.restart()
    np.testing.assert_array_equal(batch.run(FED, [7]), first)


def test_the_text_context_is_all_the_room_there_is(engine: OnnxWhisper) -> None:
    batch = engine.start([clip(1)], 10_000)
    batch.run(np.full((1, 448), 300, np.int64), [447])
    with pytest.raises(EngineError, match="448"):
        batch.run(FED[:, :1], [0])


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 480_000, 500_000])
def test_audio_of_any_length_is_heard(engine: OnnxWhisper, samples: int) -> None:
    logits = engine.start([clip(samples / 16_000)], 20).run(FED, [7])
    assert np.isfinite(logits).all() and logits.shape == (1, 1, 51865)


def test_a_closed_engine_opens_again_when_it_is_used(random_bundle: Path) -> None:
    engine = OnnxWhisper(open_bundle(random_bundle), 1)
    first = engine.start([clip(1)], 20).run(FED, [7]).copy()
    engine.close()
    assert engine._decoder is None and engine._encoder is None
    np.testing.assert_array_equal(engine.start([clip(1)], 20).run(FED, [7]), first)


def unpacked(bundle: Path, folder: Path) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def test_a_folder_gives_the_logits_of_the_zip(random_bundle: Path, engine: OnnxWhisper, tmp_path: Path) -> None:
    other = OnnxWhisper(open_bundle(unpacked(random_bundle, tmp_path / "folder")), 2)
    expected = engine.start([clip(2)], 20).run(FED, list(range(8))).copy()
    np.testing.assert_array_equal(other.start([clip(2)], 20).run(FED, list(range(8))), expected)


def test_a_bundle_elsewhere_with_any_name_loads(random_bundle: Path, engine: OnnxWhisper, tmp_path: Path) -> None:
    place = tmp_path / "un dossier à part" / "modèle №1.svb"
    place.parent.mkdir()
    shutil.copy(random_bundle, place)
    other = OnnxWhisper(open_bundle(place), 1)
    expected = engine.start([clip(1)], 20).run(FED, [7]).copy()
    np.testing.assert_allclose(other.start([clip(1)], 20).run(FED, [7]), expected, **CLOSE)


def test_one_flipped_bit_of_the_weights_is_found_before_anything_is_said(random_bundle: Path, tmp_path: Path) -> None:
    folder = unpacked(random_bundle, tmp_path / "folder")
    with (folder / "weights.bin").open("r+b") as file:
        file.seek(123_456)
        byte = file.read(1)[0]
        file.seek(123_456)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(BundleError, match=r"weights\.bin is damaged"):
        OnnxWhisper(open_bundle(folder), 1).start([np.zeros(16_000, np.float32)], 8)


def of_other_shape(random_bundle: Path, **changes: int) -> OnnxWhisper:
    bundle = open_bundle(random_bundle)
    wrong = replace(bundle.manifest, model={**bundle.manifest.model, **changes})
    return OnnxWhisper(Bundle(bundle.path, bundle.folder, wrong, bundle._locations), 1)


@pytest.mark.parametrize("changes", [{"decoder_layers": 3}, {"head_width": 16}, {"decoder_heads": 4}])
def test_a_manifest_that_does_not_fit_its_graph_is_an_engine_error(
    random_bundle: Path, changes: dict[str, int]
) -> None:
    with pytest.raises(EngineError):
        of_other_shape(random_bundle, **changes).start([clip(1)], 20).run(FED, [7])


@pytest.mark.parametrize("value", [0, -1, 1 << 30, 2.0, None, True, "4"])
def test_an_absurd_size_is_refused_before_anything_is_allocated(random_bundle: Path, value: object) -> None:
    manifest = open_bundle(random_bundle).manifest
    for key in ("decoder_layers", "decoder_heads", "head_width", "vocab_size", "text_context"):
        with pytest.raises(BundleError, match=key):
            SpeechShape.of({**manifest.model, key: value}, manifest.audio)
    for key in ("frame_samples", "max_frames"):
        with pytest.raises(BundleError, match=key):
            SpeechShape.of(manifest.model, {**manifest.audio, key: value})


@pytest.mark.weights
def test_in_int8_a_row_of_a_batch_stays_close_to_the_row_alone(tiny_bundle: Path) -> None:
    """Weights in blocks and activations quantized row by row: a neighbour changes rounding in kernels, no scale."""
    engine = OnnxWhisper(open_bundle(tiny_bundle), 2)
    clips = [clip(seconds, seed) for seed, seconds in enumerate((1.0, 4.0, 2.2))]
    fed = np.array([[50257, 50362, 300, 4000, 27, 511]] * 3, np.int64)
    batch = engine.start(clips, 20)
    together = batch.run(fed, [0, 5]).copy()
    for row, samples in enumerate(clips):
        alone = engine.start([samples], 20).run(fed[:1], [0, 5])[0]
        # An int8 step of an activation is 1/127 of its block's largest value; logits have a spread of about 5.
        np.testing.assert_allclose(together[row], alone, atol=0.1)
        assert together[row].argmax(axis=-1).tolist() == alone.argmax(axis=-1).tolist()
