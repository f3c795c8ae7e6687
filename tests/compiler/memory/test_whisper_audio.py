"""What follows from the audio's length and the model's shape alone, held against the runtime where it decides it."""

import pytest
from tests.runtime.random_whisper import random_checkpoint

from sottovoce.engines.litert import Heard, Hearing
from sottovoce.engines.shapes import SpeechShape
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.onnx.whisper import MARGIN_FRAMES, TAIL_STRIDE
from sottovoce_compiler.memory.whisper_audio import cross_bytes, encoded_frames, past_bytes, rows_together


@pytest.fixture(scope="module")
def spec() -> WhisperSpec:
    return whisper_spec(random_checkpoint())


def test_silence_is_compressed_so_that_short_audio_has_few_frames(spec: WhisperSpec) -> None:
    frames = [encoded_frames(spec, seconds, together=64) for seconds in (0.0, 5.0, 15.0, 29.5, 40.0)]
    assert frames == sorted(frames) and frames[0] < 300 and frames[-1] == 1536
    assert all(count % 64 == 0 for count in frames)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 5.0, 15.1, 29.5, 30.0])
def test_the_frames_are_those_that_an_engine_gives_its_encoder(seconds: float, spec: WhisperSpec) -> None:
    shape = SpeechShape.of(spec.model_json(), spec.audio_json())
    heard = Heard.of(round(seconds * 16_000), shape, Hearing(MARGIN_FRAMES, TAIL_STRIDE))
    assert encoded_frames(spec, seconds) == heard.frames.size


def test_caches_grow_with_the_audio_and_a_large_model_decodes_fewer_pieces_together(spec: WhisperSpec) -> None:
    assert cross_bytes(spec, 200) == 2 * cross_bytes(spec, 100)
    assert past_bytes(spec, 5.0) < past_bytes(spec, 15.0)
    assert past_bytes(spec, 15.0) == past_bytes(spec, 40.0), "no piece has more tokens than there is room for"
    assert 1 <= rows_together(spec) <= 8
