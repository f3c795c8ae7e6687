"""The WAV reader: every kind of samples, every odd header, and nothing but AudioErrors."""

import io
import struct
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.runtime.wave_case import chunk, encode, fmt, riff, tone, wave

from sottovoce.errors import AudioError
from sottovoce.wav import UnsupportedCodec, read_wave

STEP = {"u8": 2**-7, "i16": 2**-15, "i24": 2**-22, "i32": 2**-22, "f32": 1e-9, "f64": 1e-7}


def read(data: bytes) -> NDArray[np.float32]:
    _, blocks = read_wave(io.BytesIO(data), "x.wav")
    return np.concatenate([np.zeros((0, 1), np.float32), *[block[:, :1] for block in blocks]])[:, 0]


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("kind", list(STEP))
def test_every_kind_of_samples_comes_back_as_it_was_written(kind: str, extensible: bool) -> None:
    samples = tone(0.1, 16_000, level=0.9)
    read_back = read(wave(samples, kind=kind, extensible=extensible))
    assert np.abs(read_back - samples).max() <= STEP[kind]


def test_full_scale_of_each_integer_kind_is_one() -> None:
    for kind in ("u8", "i16", "i24", "i32"):
        assert read(wave(np.array([-1.0, 0.0], np.float32), kind=kind)).tolist() == [-1.0, 0.0]


def test_channels_stay_apart() -> None:
    stereo = np.stack([tone(0.1, 8000, 300), tone(0.1, 8000, 700)], axis=1)
    form, blocks = read_wave(io.BytesIO(wave(stereo, 8000, "f32")), "x.wav")
    assert (form.rate, form.channels) == (8000, 2)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), stereo)


def test_other_chunks_and_their_odd_padding_are_stepped_over() -> None:
    samples = tone(0.01, 16_000)
    body = encode(samples, "i16")
    data = riff(
        chunk(b"LIST", b"INFOISFT\x05\0\0\0abcde"),
        chunk(b"junk", b"odd"),
        fmt(16_000, 1, "i16"),
        chunk(b"fact", b"\0\0\0\0"),
        chunk(b"data", body),
        chunk(b"LIST", b"after the data"),
    )
    np.testing.assert_array_equal(read(data), read(wave(samples)))


def test_a_long_file_comes_in_several_blocks() -> None:
    samples = tone(60, 16_000)
    _, blocks = read_wave(io.BytesIO(wave(samples)), "x.wav")
    lengths = [len(block) for block in blocks]
    assert len(lengths) > 1 and sum(lengths) == len(samples)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFE - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_size_that_a_pipe_left_open_means_to_the_end(size: int) -> None:
    samples = tone(0.05, 16_000)
    data = riff(fmt(16_000, 1, "i16"), chunk(b"data", encode(samples, "i16"), size=size), size=0xFFFFFFFF)
    assert len(read(data)) == len(samples)


@pytest.mark.parametrize("riff_size", [0, 36])
def test_a_recorder_that_was_switched_off_left_zero_and_it_means_to_the_end(riff_size: int) -> None:
    samples = tone(0.05, 16_000)
    data = riff(fmt(16_000, 1, "i16"), chunk(b"data", encode(samples, "i16"), size=0), size=riff_size)
    assert len(read(data)) == len(samples)


def test_a_data_chunk_that_is_really_empty_does_not_swallow_the_next() -> None:
    assert len(read(riff(fmt(16_000, 1, "i16"), chunk(b"data", b""), chunk(b"LIST", b"INFO" * 20)))) == 0


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_rf64_takes_the_size_from_its_own_chunk(magic: bytes) -> None:
    samples = tone(0.05, 16_000)
    body = encode(samples, "i16")
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(body), len(samples), 0))
    data = riff(
        ds64,
        fmt(16_000, 1, "i16"),
        chunk(b"data", body, size=0xFFFFFFFF),
        chunk(b"LIST", b"x" * 40),
        magic=magic,
    )
    assert len(read(data)) == len(samples)


def test_a_truncated_file_says_how_much_is_there_and_how_much_was_promised() -> None:
    data = wave(tone(2.0, 16_000))
    with pytest.raises(AudioError, match=r"x\.wav: truncated: 0\.50 s of the 2\.00 s .*ffmpeg"):
        read(data[: 44 + 16_000])


def test_a_last_frame_cut_short_is_dropped() -> None:
    stereo = np.stack([tone(0.1, 16_000)] * 2, axis=1)
    assert len(read(wave(stereo)[:-3])) == 1600 - 1


@pytest.mark.parametrize("length", [*range(12, 44, 4), 13, 43])
def test_a_header_cut_short_is_an_audio_error(length: int) -> None:
    with pytest.raises(AudioError, match=r"x\.wav: "):
        read(wave(tone(0.1, 16_000))[:length])


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ((fmt(16_000, 0, "i16"),), "0 channels"),
        ((fmt(16_000, 5000, "i16"),), "5000 channels"),
        ((fmt(16_000, 1, "i48"),), "48-bit PCM"),
        ((fmt(16_000, 1, "f16"),), "16-bit float"),
        ((chunk(b"fmt ", b"short"),), "5 of at least 16 bytes"),
        ((), "before the fmt chunk"),
    ],
)
def test_a_format_that_cannot_be_is_refused_with_what_it_says(chunks: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        read(riff(*chunks, chunk(b"data", b"\0" * 64)))


def test_compressed_samples_are_told_apart_from_damage() -> None:
    with pytest.raises(UnsupportedCodec, match="0x0007"):
        read(riff(fmt(8000, 1, "u8", tag=7), chunk(b"data", b"\0" * 64)))


def test_a_stream_that_gives_a_few_bytes_at_a_time_reads_the_same() -> None:
    class Dribble:
        def __init__(self, data: bytes) -> None:
            self._inner = io.BytesIO(data)

        def read(self, count: int) -> bytes:
            return self._inner.read(min(count, 7))

    samples = tone(0.05, 16_000)
    _, blocks = read_wave(cast(BinaryIO, Dribble(wave(samples))), "x.wav")
    assert sum(len(block) for block in blocks) == len(samples)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_audio_errors(data: bytes) -> None:
    try:
        read(data)
    except AudioError as error:
        assert str(error).startswith("x.wav: ")


@given(st.data())
def test_a_sound_file_with_changed_bytes_raises_nothing_but_audio_errors(data: st.DataObject) -> None:
    spoilt = bytearray(wave(tone(0.01, 16_000), extensible=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 8))):
        spoilt[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(spoilt)))
    try:
        read(bytes(spoilt[:cut]))
    except AudioError as error:
        assert "\n" not in str(error)
