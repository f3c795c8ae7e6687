"""LiteRT's engine beside ONNX Runtime's over the same random weights in fp32: each must hear and say what the other
does."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litert_case import make_speech_bundle

from sottovoce.bundle import open_bundle
from sottovoce.engines import BundleEngine
from sottovoce.engines.litert import Heard, Hearing, LiteRtWhisper
from sottovoce.engines.onnxruntime import OnnxWhisper
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError, EngineError

FED = np.array([[50258, 50259, 50359, 50363, 300, 4000, 27, 511]], np.int64)
# fp32 by other kernels, in another order; logits here are of size 1 to 10.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 5e-4}
SECONDS = [0.4, 3.1, 3.11, 29.0, 30.0]


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech_bundle(tmp_path_factory.mktemp("litert") / "random.svb")


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Iterator[LiteRtWhisper]:
    engine = LiteRtWhisper(open_bundle(bundle), 2)
    engine.load()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(random_bundle: Path) -> Iterator[OnnxWhisper]:
    engine = OnnxWhisper(open_bundle(random_bundle), 2)
    engine.load()
    yield engine
    engine.close()


def test_it_is_a_speech_engine(engine: LiteRtWhisper, reference: OnnxWhisper) -> None:
    checked: BundleEngine = engine
    assert checked.vocab_size == reference.vocab_size and checked.adapters == 0
    assert checked.bytes_per_second() == reference.bytes_per_second()


@pytest.mark.parametrize("seconds", SECONDS)
def test_audio_of_any_length_is_heard_as_by_the_other_engine(
    engine: LiteRtWhisper, reference: OnnxWhisper, seconds: float
) -> None:
    mine, theirs = (one.start([clip(seconds)], 20) for one in (engine, reference))
    wanted = theirs.run(FED, [0, 7])
    np.testing.assert_allclose(mine.run(FED, [0, 7]), wanted, **CLOSE)
    keys = mine.alignment().shape[-1]
    np.testing.assert_allclose(mine.alignment(), theirs.alignment()[..., :keys], **CLOSE)
    np.testing.assert_allclose(mine.alignment().sum(axis=-1), 1, atol=1e-4)
    assert np.abs(np.diff(wanted, axis=1)).mean() > 0.1


@pytest.mark.parametrize("samples", [0, 1, 399, 480_001])
def test_the_shortest_and_too_long_audio_are_heard_too(
    engine: LiteRtWhisper, reference: OnnxWhisper, samples: int
) -> None:
    mine, theirs = (one.start([clip(samples / 16_000)], 20).run(FED, [7]) for one in (engine, reference))
    np.testing.assert_allclose(mine, theirs, **CLOSE)


@pytest.mark.parametrize("splits", [[1] * 8, [3, 5], [4, 1, 3]])
def test_a_prompt_in_steps_gives_the_logits_of_the_prompt_at_once(engine: LiteRtWhisper, splits: list[int]) -> None:
    whole = engine.start([clip(2)], 20).run(FED, list(range(8)))[0]
    batch, parts = engine.start([clip(2)], 20), []
    for part in np.split(FED, np.cumsum(splits)[:-1], axis=1):
        parts.append(batch.run(part, list(range(part.shape[1])))[0])
    np.testing.assert_allclose(np.concatenate(parts), whole, **CLOSE)


@pytest.mark.parametrize("length", [1, 3, 8], ids=["side by side", "several tokens", "one row after the other"])
def test_rows_of_different_lengths_hear_what_each_hears_alone(engine: LiteRtWhisper, length: int) -> None:
    clips = [clip(seconds, seed) for seed, seconds in enumerate(SECONDS[:3])]
    rows = np.stack([np.roll(FED[0], row)[:length] for row in range(len(clips))])
    wanted = [0, length - 1]
    batch = engine.start(clips, 20)
    together, attention = batch.run(rows, wanted), batch.alignment()
    step = np.arange(3)[:, None] + 600
    after = batch.run(step, [0])
    for row, samples in enumerate(clips):
        alone = engine.start([samples], 20)
        np.testing.assert_allclose(together[row], alone.run(rows[row : row + 1], wanted)[0], **CLOSE)
        keys = alone.alignment().shape[-1]
        np.testing.assert_allclose(attention[row, ..., :keys], alone.alignment()[0], **CLOSE)
        assert (attention[row, ..., keys:] == 0).all(), "what a shorter row does not have is not heard"
        np.testing.assert_allclose(after[row], alone.run(step[row : row + 1], [0])[0], **CLOSE)
    assert np.abs(together[0] - together[1]).mean() > 0.1


def test_batches_that_take_turns_do_not_disturb_each_other(engine: LiteRtWhisper) -> None:
    batches = [engine.start([clip(2, seed)], 20) for seed in range(2)]
    wanted = [engine.start([clip(2, seed)], 20).run(FED, [7]) for seed in range(2)]
    for token in range(8):
        found = [batch.run(FED[:, token : token + 1], [0]) for batch in batches]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


def test_a_restart_forgets_the_tokens_and_keeps_the_audio(engine: LiteRtWhisper) -> None:
    batch = engine.start([clip(2)], 20)
    first = batch.run(FED, [7])
    batch.run(FED[:, :3] + 1, [0])
    batch.restart()
    assert batch.length == 0
    np.testing.assert_array_equal(batch.run(FED, [7]), first)


@pytest.mark.parametrize("picked", [[1], [2, 0], [1, 1, 1], [0, 1, 2], [2, 2, 0, 1]])
def test_a_fork_has_the_audio_and_the_past_of_the_rows_it_names(engine: LiteRtWhisper, picked: list[int]) -> None:
    clips = [clip(seconds, seed) for seed, seconds in enumerate((1.0, 2.5, 0.7))]
    rows = np.stack([np.roll(FED[0], row) for row in range(3)])
    batch = engine.start(clips, 20)
    batch.run(rows, [7])
    fork = batch.fork(picked, past=True)
    assert (fork.rows, fork.length) == (len(picked), 8)
    step = np.arange(3)[:, None] + 600
    forked = fork.run(step[picked], [0])
    np.testing.assert_allclose(forked, batch.run(step, [0])[picked], **CLOSE)
    again = batch.fork(picked, past=False)
    assert again.length == 0
    fresh = again.run(rows[picked], [7])
    batch.restart()
    np.testing.assert_allclose(fresh, batch.run(rows, [7])[picked], **CLOSE)


@pytest.mark.parametrize("parents", [[0, 1, 2], [2, 1, 0], [0, 0, 0], [1, 2, 2]])
def test_reordered_beams_go_on_from_their_parents_past(engine: LiteRtWhisper, parents: list[int]) -> None:
    pasts = np.stack([np.roll(FED[0], row) for row in range(3)])
    beams = engine.start([clip(1.5)], 20).fork([0, 0, 0], past=False)
    beams.run(pasts, [7])
    beams.reorder(parents)
    for token in (600, 700):
        found = beams.run(np.arange(token, token + 3)[:, None], [0])
    for row, parent in enumerate(parents):
        alone = engine.start([clip(1.5)], 20)
        alone.run(np.concatenate([pasts[parent], [600 + row]])[None], [0])
        np.testing.assert_allclose(found[row], alone.run(np.array([[700 + row]], np.int64), [0])[0], **CLOSE)


def test_more_tokens_than_there_is_room_for_are_refused(engine: LiteRtWhisper) -> None:
    batch = engine.start([clip(1)], 9)
    batch.run(FED, [7])
    with pytest.raises(EngineError, match=r"8 \+ 2 tokens exceed the capacity of 9"):
        batch.run(FED[:, :2], [0])
    batch.run(FED[:, :1], [0])
    assert batch.length == 9


def test_alignment_before_anything_was_decoded_is_an_error(engine: LiteRtWhisper) -> None:
    with pytest.raises(EngineError, match="nothing was decoded"):
        engine.start([clip(1)], 9).alignment()


def test_a_closed_engine_opens_again_and_a_folder_says_what_the_zip_says(
    bundle: Path, engine: LiteRtWhisper, tmp_path: Path
) -> None:
    wanted = engine.start([clip(1)], 20).run(FED, [7])
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    other = LiteRtWhisper(open_bundle(tmp_path), 1)
    for _ in range(2):
        np.testing.assert_allclose(other.start([clip(1)], 20).run(FED, [7]), wanted, **CLOSE)
        other.close()


@pytest.mark.parametrize("name", ["encoder.tflite", "decoder.tflite"])
def test_a_flipped_bit_is_found_before_the_file_is_parsed(bundle: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[8] ^= 1  # of the FlatBuffer itself
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} is damaged"):
        LiteRtWhisper(open_bundle(tmp_path), 1).load()


@pytest.mark.parametrize(
    "changes", [{"decoder_layers": 3}, {"head_width": 16}, {"alignment_heads": 1}, {"vocab_size": 7}]
)
def test_a_manifest_that_does_not_fit_its_graph_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    wrong = make_speech_bundle(tmp_path / "wrong.svb", **changes)
    with pytest.raises(BundleError, match=r"tflite: .* has (shape|no)|tflite: the graph has no|expected None"):
        LiteRtWhisper(open_bundle(wrong), 1).load()


@pytest.mark.parametrize("value", [0, -1, 1 << 30, 2.0, None, True, "4"])
def test_absurd_numbers_of_the_manifest_are_named(value: object) -> None:
    for key in ("margin_frames", "tail_stride"):
        with pytest.raises(BundleError, match=key):
            Hearing.of({"margin_frames": 25, "tail_stride": 8, key: value}, 1500)


def test_frames_that_are_heard_are_those_of_the_audio_its_margin_and_every_eighth_behind() -> None:
    shape = SpeechShape(2, 2, 32, 51865, 448, frame_samples=320, max_frames=1500)
    heard = Heard.of(16_000, shape, Hearing(25, 8))
    assert heard.samples == (50 + 25 + 2) * 320
    assert heard.positions[:75].tolist() == heard.frames[:75].tolist() == list(range(75))
    assert heard.positions[75:].tolist() == list(range(79, 1500, 8)) and set(heard.frames[75:]) == {75 - 12}
    assert not heard.bias[:75].any()
    np.testing.assert_allclose(np.exp(heard.bias[75:]).sum(), 1500 - 75, rtol=1e-5)
    whole = Heard.of(480_000, shape, Hearing(25, 8))
    assert whole.frames.size == 1500 and not whole.bias.any()


def test_an_adapter_is_refused_with_the_way_out(engine: LiteRtWhisper) -> None:
    with pytest.raises(BundleError, match="takes no adapter; compile with --adapter"):
        engine.attach(None, 1.0)  # type: ignore[arg-type]
    engine.detach()


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_rounded_weights_say_nearly_the_same(engine: LiteRtWhisper, tmp_path: Path, precision: str) -> None:
    rounded = LiteRtWhisper(open_bundle(make_speech_bundle(tmp_path / "r.svb", precision)), 1)
    found, wanted = (one.start([clip(2)], 20).run(FED, [0, 7]) for one in (rounded, engine))
    error = np.sqrt(np.mean((found - wanted) ** 2) / np.var(wanted))
    assert error < {"int8": 0.05, "int4": 0.35, "fp16": 2e-3}[precision]
