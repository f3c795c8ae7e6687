"""Samples from a pipe, as `arecord`, `ffmpeg` or `sox` write them: raw, or behind a WAV header.

Knows bytes, sample encodings and pipes that give a byte at a time. Knows nothing of microphones, nor of compressed
audio, which it refuses by its first bytes.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Self, cast

from sottovoce.audio import FFMPEG_MAGIC, MAX_RATE, MIN_RATE, SOUNDFILE_MAGIC
from sottovoce.errors import AudioError, InputError
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.sources.queue import LIMIT_SECONDS, LiveQueue
from sottovoce.wav import MAX_CHANNELS, WaveFormat, is_wave, read_header, to_float

ENCODINGS: Mapping[str, tuple[str, int]] = {  # ffmpeg's name -> (kind, bytes) of a WaveFormat
    "s16le": ("i", 2),
    "s32le": ("i", 4),
    "f32le": ("f", 4),
}
READ_BYTES = 1 << 16

_HEAD_BYTES = 12
_POLL = 0.1  # seconds between two looks whether to go on
_JOIN = 1.0  # seconds; a thread that hangs in a read is left behind, as the daemon it is


class PipeSource:
    """Mono or interleaved samples from a binary stream, in a thread of its own that reads what is there.

    A pipe whose reader is late waits: nothing is lost. A WAV header's rate, channels and encoding go before those
    given; bytes of a last incomplete frame are dropped. A stream with a file descriptor is read through it, past its
    buffer. Chunks are float32 (n, channels).

    Raises InputError for a rate, a number of channels or an encoding that cannot be; while iterating, AudioError for a
    stream without a single byte, a broken header or compressed audio, OSError as the stream does.
    """

    def __init__(
        self,
        stream: BinaryIO,
        sample_rate: int = 16_000,
        channels: int = 1,
        encoding: str = "s16le",
        *,
        name: str = "standard input",
        limit: float = LIMIT_SECONDS,
    ) -> None:
        if encoding not in ENCODINGS:
            raise InputError(f"no encoding {encoding!r}; there are {', '.join(ENCODINGS)}")
        self._format = WaveFormat(sample_rate, channels, *ENCODINGS[encoding])
        _check(self._format, InputError, "")
        self._name = name
        self._queue = LiveQueue(limit, "wait")
        self._pipe = _Pipe(stream, lambda: self._queue.ended)
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk | AudioGap:
        if self._thread is None and not self._queue.ended:
            self._thread = threading.Thread(target=self._read, name="sottovoce-pipe", daemon=True)
            self._thread.start()
        return next(self._queue)

    def stop(self) -> None:
        """Reads no more."""
        self._queue.finish()

    def close(self) -> None:
        """Ends the thread; the stream itself stays open."""
        self._queue.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN)

    def _read(self) -> None:
        try:
            for wave, frames in self._frames():
                if not self._queue.put(to_float(frames, wave), wave.rate):
                    return
            self._queue.finish()
        except BaseException as error:  # whatever it is, it is the consumer's to know
            self._queue.finish(error)

    def _frames(self) -> Iterator[tuple[WaveFormat, bytes]]:
        """Whole frames, as they come."""
        wave, left = self._begin()
        rest = b""
        while left is None or left > 0:
            raw = self._pipe.read(READ_BYTES if left is None else min(READ_BYTES, left))
            if not raw:
                return
            left = None if left is None else left - len(raw)
            rest += raw
            whole = len(rest) - len(rest) % wave.frame_bytes
            if whole:
                yield wave, rest[:whole]
                rest = rest[whole:]

    def _begin(self) -> tuple[WaveFormat, int | None]:
        """The format, and the bytes that follow if that is known."""
        head = self._pipe.head(_HEAD_BYTES)
        if not head and not self._queue.ended:
            raise AudioError(f"{self._name}: empty (0 bytes)")
        if not is_wave(head):
            _refuse_compressed(head, self._name)
            return self._format, None
        wave, size = read_header(cast(BinaryIO, self._pipe), self._name)
        _check(wave, AudioError, f"{self._name}: ")
        return wave, size


class _Pipe:
    """Reads what is there, at most so much, and stops waiting when nobody wants it any more."""

    def __init__(self, stream: BinaryIO, unwanted: Callable[[], bool]) -> None:
        self._unwanted = unwanted
        self._head = b""
        self._read = getattr(stream, "read1", stream.read)
        self._number: int | None = None
        with contextlib.suppress(OSError, AttributeError, ValueError):  # bytes in memory have no descriptor
            self._number = stream.fileno()

    def head(self, count: int) -> bytes:
        """The first `count` bytes, fewer only at the end; they are read once more after it."""
        while len(self._head) < count and (piece := self._read_some(count - len(self._head))):
            self._head += piece
        return self._head

    def read(self, count: int) -> bytes:
        """At least one byte, or none at the end."""
        if self._head:
            piece, self._head = self._head[:count], self._head[count:]
            return piece
        return self._read_some(count)

    def _read_some(self, count: int) -> bytes:
        if self._number is None:
            return b"" if self._unwanted() else bytes(self._read(count) or b"")
        while not self._unwanted():
            if _is_ready(self._number):
                return os.read(self._number, count)
        return b""


def _is_ready(number: int) -> bool:
    """Whether a read would not wait. Where the system cannot tell, the read does the waiting."""
    if os.name != "posix":
        return True
    try:
        return bool(select.select([number], [], [], _POLL)[0])
    except ValueError:  # a number too high for select
        return True


def _check(wave: WaveFormat, kind: type[InputError], prefix: str) -> None:
    if not MIN_RATE <= wave.rate <= MAX_RATE:
        raise kind(f"{prefix}a sample rate of {wave.rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be used")
    if not 1 <= wave.channels <= MAX_CHANNELS:
        raise kind(f"{prefix}{wave.channels} channels; 1 to {MAX_CHANNELS} are possible")


def _refuse_compressed(head: bytes, name: str) -> None:
    packed = head.startswith(SOUNDFILE_MAGIC) or any(head[at : at + len(m)] == m for at, m, _ in FFMPEG_MAGIC)
    if packed:
        raise AudioError(
            f"{name}: a file that is not WAV, where raw samples are expected; "
            "decode it first: ffmpeg -i FILE -f s16le -ar 16000 -ac 1 -"
        )
