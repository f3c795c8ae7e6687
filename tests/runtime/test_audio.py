"""Every way to hand over audio, and every way in which it can be unusable."""

import builtins
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.wave_case import chunk, encode, fmt, riff, tone, wave

from sottovoce.audio import load_audio, read_audio
from sottovoce.errors import AudioError, MissingExtraError, SottovoceError

RATE = 16_000


def closeness(first: Any, second: Any) -> float:
    """The largest difference away from the ends."""
    shorter = min(len(first), len(second))
    return float(np.abs(first[1000 : shorter - 1000] - second[1000 : shorter - 1000]).max())


def test_a_path_a_string_and_bytes_give_the_same(tmp_path: Path) -> None:
    data, path = wave(tone(0.5, RATE)), tmp_path / "x.wav"
    path.write_bytes(data)
    loaded = load_audio(path)
    assert loaded.dtype == np.float32 and loaded.shape == (8000,)
    for source in (str(path), data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(load_audio(source), loaded)


@pytest.mark.parametrize("rate", [1_000, 7_999, 8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 192_000, 768_000])
def test_any_rate_becomes_16_khz(rate: int) -> None:
    loaded = load_audio(wave(tone(1.0, rate, hertz=200), rate, "f32"))
    assert len(loaded) == RATE
    assert closeness(loaded, tone(1.0, RATE, hertz=200)) < 1e-4


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_averaged(channels: int) -> None:
    samples = np.stack([tone(0.5, RATE, level=0.1 * (channel + 1)) for channel in range(channels)], axis=1)
    np.testing.assert_allclose(load_audio(wave(samples, kind="f32")), samples.mean(axis=1), atol=1e-6)


def test_fifty_milliseconds_are_enough() -> None:
    assert len(load_audio(wave(tone(0.05, RATE)))) == 800
    assert len(load_audio(np.zeros(1, np.float32))) == 1


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8"])
def test_integer_arrays_are_scaled(dtype: str) -> None:
    samples = tone(0.1, RATE, level=0.9)
    bits = {"int16": 16, "int32": 32, "uint8": 8}[dtype]
    whole = np.round(samples.astype(np.float64) * (2 ** (bits - 1) - 1)) + (128 if dtype == "uint8" else 0)
    assert np.abs(load_audio(whole.astype(dtype)) - samples).max() < (2e-2 if bits == 8 else 1e-4)


def test_a_sound_array_is_returned_without_a_copy_and_is_left_as_it_is() -> None:
    samples = tone(0.1, RATE)
    assert load_audio(samples) is samples


def test_an_array_at_another_rate_is_resampled() -> None:
    assert closeness(load_audio(tone(1.0, 44_100), sample_rate=44_100), tone(1.0, RATE)) < 1e-4
    assert len(load_audio(tone(1.0, 44_100).astype(np.float64), sample_rate=44_100)) == RATE


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((100, 2), np.float32), r"shape \(100, 2\).*array\.mean\(axis=1\)"),
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\).*array\.mean\(axis=0\)"),
        (np.zeros((1, 100), np.float32), r"array\.squeeze\(\)"),
        (np.zeros((2, 3, 4), np.float32), r"shape \(2, 3, 4\)"),
        (np.ones(()), r"shape \(\)"),
        (np.zeros(0, np.float32), "no audio in it"),
        (np.zeros(10, np.complex64), "complex64"),
        (np.zeros(10, np.int64), "int64"),
        (np.zeros(10, bool), "bool"),
        (np.array(["a"]), "dtype <U1"),
        (np.full(100, 20_000.0, np.float32), "up to 2e.04.*divide"),
    ],
)
def test_an_array_that_is_not_audio_says_what_it_is_and_what_to_do(array: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        load_audio(array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_file", [False, True])
def test_samples_that_are_no_numbers_are_counted_and_the_first_is_named(value: float, as_file: bool) -> None:
    samples = tone(10.0, 48_000)
    samples[[24_000, 400_000, 400_001]] = value
    with pytest.raises(AudioError, match=r"3 samples are not finite.*first at sample 24000 \(0\.500 s\)"):
        load_audio(wave(samples, 48_000, "f32")) if as_file else load_audio(samples, sample_rate=48_000)


def test_a_float64_too_large_for_float32_is_not_finite_either() -> None:
    with pytest.raises(AudioError, match="1 samples are not finite"):
        load_audio(np.array([0.0, 1e300]))


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**30])
def test_a_rate_out_of_reason_is_named_with_what_is_possible(rate: int) -> None:
    with pytest.raises(AudioError, match=f"{rate} Hz; 1000 to 768000 Hz"):
        load_audio(wave(tone(0.1, RATE), rate))


@pytest.mark.parametrize("rate", [-1, 0, 16_000.5, float("nan"), float("inf"), "16000"])
def test_an_array_with_an_impossible_rate_is_refused(rate: Any) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        load_audio(tone(0.1, RATE), sample_rate=rate)


def test_a_rate_beside_a_file_is_refused_because_the_file_says_its_own() -> None:
    with pytest.raises(AudioError, match="leave it out"):
        load_audio(wave(tone(0.1, RATE)), sample_rate=8000)


def test_something_else_is_refused_by_its_type() -> None:
    with pytest.raises(AudioError, match="list"):
        load_audio([0.0, 0.1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
        (lambda path: path.write_bytes(b"RIFF"), "cannot be decoded|cut short"),
        (
            lambda path: path.write_text("Dear diary, today I said nothing.\n" * 9),
            "not a recording.*ffmpeg -i",
        ),
        (lambda path: path.write_bytes(b"\0" * 5000), "not a recording"),
        (lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 200), r"M4A.*ffmpeg -i .*16k\.wav"),
        (lambda path: path.write_bytes(b"\x1a\x45\xdf\xa3" + b"\0" * 200), "WebM.*ffmpeg"),
        (lambda path: path.write_bytes(wave(tone(1.0, RATE))[:-9000]), r"truncated: 0\.72 s of the 1\.00 s"),
        (lambda path: path.write_bytes(wave(np.zeros(0, np.float32))), r"no audio in it \(0 samples\)"),
        (lambda path: path.write_bytes(b"fLaC" + b"\0" * 500), "cannot be decoded.*ffmpeg"),
        (lambda path: path.write_bytes(b"OggS" + b"\0" * 500), "cannot be decoded.*ffmpeg"),
    ],
)
def test_a_bad_file_gives_one_line_that_names_it(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "some talk.wav"
    make(path)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_path_with_a_nul_is_an_audio_error() -> None:
    with pytest.raises(AudioError, match="not a path"):
        load_audio("a\0b.wav")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wave(tone(0.1, RATE)))
    path.chmod(0)
    with pytest.raises(AudioError, match="cannot be read"):
        load_audio(path)


def test_a_pipe_reads_like_a_file(tmp_path: Path) -> None:
    data = wave(tone(1.0, 44_100), 44_100)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    try:
        np.testing.assert_array_equal(load_audio(fifo), load_audio(data))
    finally:
        writer.join()


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.1), ("mp3", 0.1), ("aiff", 1e-4)])
def test_other_formats_are_read_through_soundfile(tmp_path: Path, suffix: str, tolerance: float) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, np.stack([tone(1.0, 44_100)] * 2, axis=1), 44_100)
    for source in (path, path.read_bytes()):
        assert closeness(load_audio(source), tone(1.0, RATE)) < tolerance


def test_a_wav_with_compressed_samples_is_read_through_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "phone.wav"
    soundfile.write(path, tone(1.0, 8000), 8000, subtype="ULAW")
    assert closeness(load_audio(path), tone(1.0, RATE)) < 0.05


def test_a_truncated_flac_is_an_error(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE), RATE)
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(AudioError, match=r"x\.flac: (truncated|cannot be decoded)"):
        load_audio(path)


def test_without_soundfile_the_error_has_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_soundfile(name: str, *rest: Any, **options: Any) -> Any:
        if name == "soundfile":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_soundfile)
    path = tmp_path / "x.mp3"
    path.write_bytes(b"ID3" + b"\0" * 100)
    with pytest.raises(MissingExtraError, match=r"x\.mp3.*pip install 'sottovoce\[audio\]'"):
        load_audio(path)
    assert len(load_audio(wave(tone(0.1, RATE)))) == 1600
    with pytest.raises(AudioError, match="not a recording"):  # installing something would not help
        load_audio(b"Dear diary, today I said nothing.")


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_our_errors(data: bytes) -> None:
    with pytest.raises(SottovoceError):
        load_audio(data)


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(["i16", "i24", "f32", "f64"]),
    st.integers(0, 100_000),
    st.integers(0, 4),
)
def test_any_content_under_a_sound_header_gives_finite_samples_or_our_error(
    data: bytes, kind: str, rate: int, channels: int
) -> None:
    try:
        loaded = load_audio(riff(fmt(rate, channels, kind), chunk(b"data", data)))
    except SottovoceError:
        return
    assert loaded.dtype == np.float32 and np.isfinite(loaded).all()


def test_a_stream_without_seeking_may_carry_flac() -> None:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(0.5, RATE), RATE, format="FLAC")

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    assert len(read_audio(Pipe(buffer.getvalue()), "standard input")) == 8000


def test_a_long_recording_takes_at_most_three_times_the_memory_of_its_result(tmp_path: Path) -> None:
    """Measured in a process of its own: the most it ever held, less what it held before."""
    pytest.importorskip("resource")
    minutes = 10
    second = encode(np.stack([tone(1.0, 44_100)] * 2, axis=1), "i16")
    path = tmp_path / "long.wav"
    size = len(second) * 60 * minutes
    with path.open("wb") as file:
        file.write(riff(fmt(44_100, 2, "i16"), chunk(b"data", b"", size=size), size=size + 36))
        for _ in range(60 * minutes):
            file.write(second)
    script = (
        "import resource, sys; from sottovoce.audio import load_audio; load_audio(sys.argv[2])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak(); n = load_audio(sys.argv[1]).nbytes; print((peak() - before) / n)"
    )
    warm = tmp_path / "warm.wav"
    warm.write_bytes(wave(np.stack([tone(5.0, 44_100)] * 2, axis=1), 44_100))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(path), str(warm)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3
