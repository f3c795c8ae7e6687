"""Samples from a pipe: every encoding, every way to cut bytes, and headers that lie about the length."""

import io
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.wave_case import chunk, encode, fmt, riff, tone, wave

from sottovoce.errors import AudioError, InputError
from sottovoce.streaming.chunks import AudioChunk
from sottovoce.streaming.sources.pipe import ENCODINGS, PipeSource

WAVE_KINDS = {"s16le": "i16", "s32le": "i32", "f32le": "f32"}


class Dribble(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, body: bytes) -> None:
        self._body = iter(body)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        byte = next(self._body, None)
        return b"" if byte is None else bytes([byte])


def heard(source: PipeSource) -> tuple[NDArray[np.float32], int, int]:
    """All samples (n, channels), the rate and the number of chunks."""
    chunks = [one for one in source if isinstance(one, AudioChunk)]
    source.close()
    assert len({one.sample_rate for one in chunks}) == 1
    return np.concatenate([one.samples for one in chunks]), chunks[0].sample_rate, len(chunks)


def stream(body: bytes) -> BinaryIO:
    return io.BytesIO(body)


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, int]]:
    """A pipe: the end to read from, and the number of the end to write to."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as opened:
        yield opened, writing


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_encoding_is_read_to_full_scale_1(encoding: str, channels: int) -> None:
    spoken = np.stack([tone(0.5, 8000, level=level) for level in (0.5, 0.25)[:channels]], axis=1)
    source = PipeSource(stream(encode(spoken, WAVE_KINDS[encoding])), 8000, channels, encoding)
    found, rate, _ = heard(source)
    assert rate == 8000 and found.shape == (4000, channels)
    np.testing.assert_allclose(found, spoken, atol=2**-15)


@pytest.mark.parametrize("header", [False, True])
def test_a_pipe_that_gives_single_bytes_loses_none(header: bool) -> None:
    spoken = tone(0.05, 16_000)
    body = wave(spoken) if header else encode(spoken, "i16")
    found, _, _ = heard(PipeSource(cast(BinaryIO, Dribble(body))))
    np.testing.assert_allclose(found[:, 0], spoken, atol=2**-15)


def test_the_bytes_of_an_incomplete_last_frame_are_dropped() -> None:
    found, _, _ = heard(PipeSource(stream(encode(tone(0.1, 16_000), "i16") + b"\x01")))
    assert len(found) == 1600


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFF000])
def test_the_header_that_arecord_writes_is_not_heard_and_its_length_not_believed(size: int) -> None:
    spoken = np.stack([tone(0.2, 44_100), tone(0.2, 44_100, 880.0)], axis=1)
    body = riff(fmt(44_100, 2, "i16"), chunk(b"data", encode(spoken, "i16"), size), size=size)
    found, rate, _ = heard(PipeSource(stream(body), 16_000, 1, "f32le"))
    assert rate == 44_100
    np.testing.assert_allclose(found, spoken, atol=2**-15)


def test_what_stands_behind_the_samples_of_a_wav_file_is_not_heard() -> None:
    spoken = tone(0.1, 16_000)
    body = riff(fmt(16_000, 1, "i24"), chunk(b"data", encode(spoken, "i24")), chunk(b"LIST", b"\x7f" * 5000))
    found, _, _ = heard(PipeSource(stream(body)))
    np.testing.assert_allclose(found[:, 0], spoken, atol=2**-20)


def test_a_wav_stream_that_ends_early_keeps_what_came() -> None:
    body = wave(tone(1.0, 16_000))
    assert len(heard(PipeSource(stream(body[: len(body) // 2])))[0]) == pytest.approx(8000, abs=30)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "standard input: empty"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0", "no fmt chunk"),
        (wave(tone(0.1, 400), 400), "sample rate of 400 Hz; 1000 to 768000"),
        (b"fLaC" + b"\0" * 100, "not WAV"),
        (b"\0\0\0\x20ftypM4A " + b"\0" * 100, "ffmpeg -i FILE"),
    ],
)
def test_a_stream_that_cannot_be_samples_is_refused(body: bytes, message: str) -> None:
    source = PipeSource(stream(body))
    with pytest.raises(AudioError, match=message):
        next(source)
    assert list(source) == []


@pytest.mark.parametrize(
    ("rate", "channels", "encoding", "message"),
    [
        (999, 1, "s16le", "999 Hz; 1000 to 768000"),
        (768_001, 1, "s16le", "768001 Hz"),
        (16_000, 0, "s16le", "0 channels"),
        (16_000, 1, "mp3", "no encoding 'mp3'; there are s16le, s32le, f32le"),
    ],
)
def test_what_raw_samples_cannot_be_is_refused_at_once(rate: int, channels: int, encoding: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PipeSource(stream(b""), rate, channels, encoding)


def test_samples_come_while_the_pipe_is_still_open(pipe: tuple[BinaryIO, int]) -> None:
    opened, writing = pipe
    source = PipeSource(opened)
    os.write(writing, encode(tone(0.1, 16_000), "i16"))
    came = 0
    while came < 1600:  # would wait for ever if the end of the pipe were needed
        one = next(source)
        assert isinstance(one, AudioChunk)
        came += len(one.samples)
    os.close(writing)
    assert list(source) == []


def test_stopping_a_pipe_that_says_nothing_ends_it(pipe: tuple[BinaryIO, int]) -> None:
    opened, writing = pipe
    source = PipeSource(opened)
    threading.Timer(0.05, source.stop).start()
    assert list(source) == []
    source.close()
    assert source._thread is not None and not source._thread.is_alive()
    os.close(writing)


def test_closing_ends_the_thread_that_waits_for_a_slow_listener(pipe: tuple[BinaryIO, int]) -> None:
    opened, writing = pipe
    source = PipeSource(opened, limit=0.1)
    writer = threading.Thread(target=lambda: os.write(writing, bytes(60_000)), daemon=True)
    writer.start()
    next(source)
    source.close()
    source.close()
    assert source._thread is not None and not source._thread.is_alive()
    assert list(source) == []
    os.close(writing)


def test_a_source_that_was_never_read_can_be_closed() -> None:
    source = PipeSource(stream(b"12"))
    source.close()
    assert list(source) == []


def test_an_error_of_the_stream_reaches_the_listener_after_what_came_before() -> None:
    class Breaking(Dribble):
        def read(self, size: int = -1) -> bytes:
            byte = super().read(size)
            if not byte:
                raise OSError(5, "Input/output error")
            return byte

    source = PipeSource(cast(BinaryIO, Breaking(bytes(100))))
    count = 0
    with pytest.raises(OSError, match="Input/output error"):
        for one in source:
            assert isinstance(one, AudioChunk)
            count += len(one.samples)
    assert count == 50
