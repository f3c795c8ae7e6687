"""Whatever the user has, as mono float32 samples at 16 kHz.

Knows files, bytes, streams and arrays, and which error says what is wrong with one. WAV is read here
(wav.py); every other format goes through soundfile, the extra `audio`. Works block by block: beside the
result, a long recording costs little. Knows nothing of speech.
"""

import io
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import AudioError, MissingExtraError
from sottovoce.resample import Resampler
from sottovoce.wav import UnsupportedCodec, is_wave, read_wave

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE = 16_000  # Hz, of everything that load_audio returns
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz
MAX_LEVEL = 100.0  # 40 dB over full scale: beyond it floats are not audio, most often unscaled integers
BLOCK_FRAMES = 1 << 16

INTEGER_SCALES = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}  # (zero, full scale)

# First bytes of what soundfile reads, and, with their place, of what only ffmpeg does.
SOUNDFILE_MAGIC = (
    b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd", b"riff", b"RIFF", b"RIFX", b"RF64", b"BW64",
)  # fmt: skip
# By soundfile's names: formats whose header states the length; others estimate it.
EXACT_LENGTH = frozenset({"FLAC", "AIFF", "AU", "CAF", "W64", "WAV"})
SOUNDFILE_SUFFIXES = (
    ".mp3", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64",
)  # fmt: skip
FFMPEG_MAGIC = (
    (4, b"ftyp", "MP4/M4A"), (0, b"\x1a\x45\xdf\xa3", "Matroska/WebM"), (0, b"\x30\x26\xb2\x75", "WMA/ASF"),
    (0, b"#!AMR", "AMR"), (0, b"MAC ", "Monkey's Audio"), (0, b"wvpk", "WavPack"), (0, b"ADIF", "AAC"),
)  # fmt: skip

Samples = NDArray[np.float32]
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any]


def load_audio(source: Source, sample_rate: int | None = None) -> Samples:
    """Returns samples (n,) float32, mono, 16 kHz; full scale is 1.

    `source` is a path, the bytes of a file, or an array (samples,): floats within -1..1, or int16, int32 or
    uint8, which are scaled. `sample_rate` (Hz) is for arrays alone, 16000 if not given; a file says its own.
    Channels of a file are averaged. An array that needs no change is returned as it is, not copied.

    Raises AudioError for anything that is not usable audio, MissingExtraError if only soundfile could read
    it.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, SAMPLE_RATE if sample_rate is None else sample_rate)
    if sample_rate is not None:
        raise AudioError("sample_rate is for arrays; a file's own header says its rate: leave it out")
    if isinstance(source, bytes | bytearray | memoryview):
        return read_audio(io.BytesIO(source), "these bytes")
    if not isinstance(source, str | os.PathLike):
        raise AudioError(
            f"audio of type {type(source).__name__}; needed is a path, the bytes of a file or a NumPy array"
        )
    return _from_path(Path(source))


def read_audio(stream: BinaryIO, name: str) -> Samples:
    """The same for an open binary stream, which need not be seekable; `name` is what errors call it."""
    head = b""
    while len(head) < 12 and (piece := stream.read(12 - len(head))):
        head += piece
    if not head:
        raise AudioError(f"{name}: empty (0 bytes)")
    opened = _rewound(stream, head)
    if not is_wave(head):
        return _with_soundfile(opened, head, name)
    try:
        wave, blocks = read_wave(opened, name)
    except UnsupportedCodec as error:
        if not opened.seekable():
            raise AudioError(f"{error}; give it as a file") from None
        opened.seek(0)
        return _with_soundfile(opened, head, name)
    return _convert(blocks, wave.rate, name)


def _from_path(path: Path) -> Samples:
    try:
        if path.is_dir():
            raise AudioError(f"{path}: a folder, not a recording; name the files in it: {path}/*.wav")
        with path.open("rb") as stream:
            return read_audio(stream, str(path))
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{str(path)!r}: not a path: {error}") from None  # a NUL character in it


def _from_array(array: NDArray[Any], rate: int) -> Samples:
    if array.ndim == 2:
        shape = array.shape
        remedy = "array.squeeze()" if 1 in shape else f"array.mean(axis={int(shape[0] > shape[1])})"
        raise AudioError(f"audio of shape {shape}; one channel of shape (samples,) is needed: try {remedy}")
    if array.ndim != 1:
        raise AudioError(f"audio of shape {array.shape}; one channel of shape (samples,) is needed")
    samples = np.ascontiguousarray(scaled(array))
    blocks = (samples[start : start + BLOCK_FRAMES, None] for start in range(0, len(samples), BLOCK_FRAMES))
    if rate == SAMPLE_RATE:
        for _ in _checked(blocks, rate, "this array"):
            pass
        return samples
    return _convert(blocks, rate, "this array")


def scaled(array: NDArray[Any]) -> Samples:
    """The same samples, of any shape, as float32 with full scale 1; floats are taken as they are.

    Raises AudioError for a dtype that holds no audio.
    """
    if array.dtype.name in INTEGER_SCALES:
        zero, scale = INTEGER_SCALES[array.dtype.name]
        return (array.astype(np.float32) - np.float32(zero)) / np.float32(scale)
    if array.dtype.kind != "f":
        raise AudioError(f"audio of dtype {array.dtype}; allowed are floats, int16, int32 and uint8")
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def _convert(blocks: Iterable[Samples], rate: int, name: str) -> Samples:
    """Blocks (frames, channels) at `rate` Hz -> all of it (n,) at 16 kHz."""
    if not isinstance(rate, Real) or not MIN_RATE <= rate <= MAX_RATE or rate != int(rate):
        raise AudioError(f"{name}: a sample rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be used")
    resampler = Resampler(int(rate), SAMPLE_RATE)
    pieces = [resampler.push(mono(block)) for block in _checked(blocks, rate, name)]
    pieces.append(resampler.finish())
    return np.concatenate(pieces)


def mono(block: Samples) -> Samples:
    """The mean of (frames, channels) over the channels; a product, as NumPy's mean of short rows is slow."""
    channels = block.shape[1]
    return block[:, 0] if channels == 1 else block @ np.full(channels, 1 / channels, np.float32)


@dataclass
class _Faults:
    """What is wrong with the samples seen so far; `first` and `frames` count frames."""

    frames: int = 0
    count: int = 0
    first: int = 0
    level: float = 0.0

    def look(self, block: Samples) -> None:
        """Takes in the next block (frames, channels)."""
        # One pass decides: the extremes are NaN or infinite if anything is.
        low, high = float(block.min()), float(block.max())
        if np.isfinite(low) and np.isfinite(high):
            self.level = max(self.level, high, -low)
        else:
            bad = ~np.isfinite(block)
            if not self.count:
                self.first = self.frames + int(np.argmax(bad.any(axis=1)))
            self.count += int(bad.sum())
        self.frames += len(block)


def _checked(blocks: Iterable[Samples], rate: int, name: str) -> Iterator[Samples]:
    """Passes blocks on while they are sound; reads to the end before it says how many samples are not."""
    faults = _Faults()
    for block in blocks:
        if len(block):
            faults.look(block)
            if not faults.count and faults.level <= MAX_LEVEL:
                yield block
    if faults.count:
        raise AudioError(
            f"{name}: {faults.count} samples are not finite numbers (NaN or infinite), "
            f"the first at sample {faults.first} ({faults.first / rate:.3f} s)"
        )
    if faults.level > MAX_LEVEL:
        raise AudioError(
            f"{name}: samples of up to {faults.level:.4g}, and floats are expected within -1..1; "
            "divide by full scale (32768 for 16 bits)"
        )
    if not faults.frames:
        raise AudioError(f"{name}: no audio in it (0 samples)")


def _with_soundfile(stream: BinaryIO, head: bytes, name: str) -> Samples:
    """Everything but plain WAV; `stream` is at its start."""
    kind = next((kind for at, magic, kind in FFMPEG_MAGIC if head[at : at + len(magic)] == magic), None)
    if kind:
        raise AudioError(f"{name}: {kind} is not read here; convert it first: {_ffmpeg(name)}")
    if not _soundfile_may_read(head, name):
        raise AudioError(f"{name}: not a recording in a format known here; if it is one: {_ffmpeg(name)}")
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the wheel is there, the library in it is not
        raise MissingExtraError(
            f"{name}: only plain WAV is read without an extra; for the rest: pip install 'sottovoce[audio]'"
        ) from None
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    try:
        with soundfile.SoundFile(stream) as opened:
            return _convert(_soundfile_blocks(opened, name), opened.samplerate, name)
    except (soundfile.SoundFileError, TypeError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        raise AudioError(f"{name}: cannot be decoded ({reason}); convert it first: {_ffmpeg(name)}") from None


def _soundfile_blocks(opened: "soundfile.SoundFile", name: str) -> Iterator[Samples]:
    done = 0
    while len(block := opened.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        done += len(block)
        yield block
    if done < opened.frames and opened.format in EXACT_LENGTH:
        there, promised = (frames / opened.samplerate for frames in (done, opened.frames))
        raise AudioError(
            f"{name}: truncated: {there:.2f} s of the {promised:.2f} s of audio that the header promises; "
            f"copy it again, or keep what is there: {_ffmpeg(name)}"
        )


def _soundfile_may_read(head: bytes, name: str) -> bool:
    is_mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    known = head.startswith(SOUNDFILE_MAGIC)
    return known or is_mpeg or Path(name).suffix.lower() in SOUNDFILE_SUFFIXES


def _ffmpeg(name: str) -> str:
    file = Path(name if Path(name).suffix else "FILE")
    return f"ffmpeg -i {shlex.quote(str(file))} -ar 16000 -ac 1 {shlex.quote(file.stem + '-16k.wav')}"


def _rewound(stream: BinaryIO, head: bytes) -> BinaryIO:
    """The stream as if `head` had not been read from it."""
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        return stream
    return io.BufferedReader(_Prepended(head, stream))


class _Prepended(io.RawIOBase):
    """A few bytes, then a stream that cannot seek."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(piece) :] if self._head else b""
        buffer[: len(piece)] = piece
        return len(piece)
