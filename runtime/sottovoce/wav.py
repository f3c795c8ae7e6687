"""Reads RIFF/WAVE front to back, never seeking, so that a pipe is as good as a file.

Knows PCM of 8 to 32 bits and IEEE floats, plain or as WAVE_FORMAT_EXTENSIBLE, RF64 and BW64, and the
placeholder sizes that streaming writers leave. Knows nothing of sample rates to convert to, of channels to
mix, or of other formats.

A file that holds less than its header promises is an error: half a recording that looks whole is worse than
none. Two kinds are taken as they are: sizes that were never filled in (a pipe, a recorder that was switched
off), which mean "to the end", and a last frame that is cut short, which is dropped.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import AudioError

BLOCK_BYTES = 1 << 20
MAX_CHANNELS = 1024
MAX_FMT_BYTES = 4096  # 40 in practice

PCM, FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of a GUID that begins with the plain tag
SIZE_IN_DS64 = 0xFFFFFFFF


@dataclass(frozen=True)
class WaveFormat:
    """What the `fmt ` chunk says; `kind` is "i" for integers, "f" for floats, `width` bytes a sample."""

    rate: int
    channels: int
    kind: str
    width: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.width


class UnsupportedCodec(AudioError):
    """A WAVE file whose samples are compressed; another reader may know how."""


def is_wave(head: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a WAVE file that this module reads."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def read_wave(stream: BinaryIO, name: str) -> tuple[WaveFormat, Iterator[NDArray[np.float32]]]:
    """The format, and an iterator of blocks (frames, channels) float32 with full scale at 1.

    Errors, here or while iterating, are AudioErrors that begin with `name`.
    """
    wave, size = read_header(stream, name)
    return wave, _blocks(stream, wave, size, name)


def read_header(stream: BinaryIO, name: str) -> tuple[WaveFormat, int | None]:
    """The format, and the bytes of samples that follow, None where they go on to the end of the stream.

    Not one byte of the samples is read. Raises AudioError as `read_wave` does.
    """
    riff = _exactly(stream, 12, name)
    header = _read_header(stream, name)
    if header.wave is None:
        raise AudioError(f"{name}: the data comes before the fmt chunk; not a WAV file that can be read")
    size: int | None = header.data_size
    if riff[:4] != b"RIFF" and size == SIZE_IN_DS64 and header.long_data_size is not None:
        size = header.long_data_size
    elif _is_placeholder(header.data_size) or (size == 0 and struct.unpack("<I", riff[4:8])[0] <= header.place):
        size = None
    return header.wave, size


@dataclass
class _Header:
    """What stands before the samples; `place` counts the bytes up to them."""

    wave: WaveFormat | None = None
    long_data_size: int | None = None
    data_size: int = 0
    place: int = 12


def _read_header(stream: BinaryIO, name: str) -> _Header:
    """Reads chunk after chunk, up to the first byte of the data."""
    header = _Header()
    while True:
        start = _up_to(stream, 8)
        if len(start) < 8:
            missing = "data" if header.wave else "fmt"
            raise AudioError(f"{name}: this WAV file has no {missing} chunk; it is damaged or cut short")
        kind, size = start[:4], int(struct.unpack("<I", start[4:])[0])
        header.place += 8
        if kind == b"data":
            header.data_size = size
            return header
        known = _exactly(stream, min(size, MAX_FMT_BYTES), name) if kind in (b"fmt ", b"ds64") else b""
        if kind == b"fmt ":
            header.wave = _parse_format(known, name)
        elif len(known) >= 16:
            header.long_data_size = struct.unpack("<Q", known[8:16])[0]
        _skip(stream, size + size % 2 - len(known))
        header.place += size + size % 2


def _is_placeholder(size: int) -> bool:
    """Sizes that writers to a pipe put down: the largest signed or unsigned 32-bit number, or a little less.

    A file that really has that many bytes reads the same, to its end.
    """
    return 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFF0000


def _parse_format(body: bytes, name: str) -> WaveFormat:
    if len(body) < 16:
        raise AudioError(f"{name}: the fmt chunk of this WAV file has {len(body)} of at least 16 bytes")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == EXTENSIBLE and len(body) >= 40:
        if body[26:40] != SUBFORMAT_TAIL:
            raise UnsupportedCodec(f"{name}: a WAV file with samples of unknown kind {body[24:40].hex()}")
        tag = int(struct.unpack("<H", body[24:26])[0])
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: the header says {channels} channels, 1 to {MAX_CHANNELS} are possible")
    if tag not in (PCM, FLOAT):
        raise UnsupportedCodec(f"{name}: a WAV file with compressed samples (format 0x{tag:04x})")
    width, rest = divmod(frame_bytes, channels)
    kind, widths = ("i", (1, 2, 3, 4)) if tag == PCM else ("f", (4, 8))
    if rest or width not in widths or (bits + 7) // 8 != width:
        what = "PCM" if tag == PCM else "float"
        raise AudioError(
            f"{name}: {bits}-bit {what} samples, {channels} channels, {frame_bytes} bytes a frame: "
            "this cannot be a sound WAV file"
        )
    return WaveFormat(rate, channels, kind, width)


def _blocks(stream: BinaryIO, wave: WaveFormat, size: int | None, name: str) -> Iterator[NDArray[np.float32]]:
    """Blocks of the data chunk, `size` bytes long, or to the end of the stream if that is None."""
    wanted = None if size is None else size - size % wave.frame_bytes
    done = 0
    step = max(1, BLOCK_BYTES // wave.frame_bytes) * wave.frame_bytes
    while wanted is None or done < wanted:
        raw = _up_to(stream, step if wanted is None else min(step, wanted - done))
        whole = len(raw) - len(raw) % wave.frame_bytes
        done += whole
        if whole:
            yield to_float(raw[:whole], wave)
        if whole < len(raw) or not raw:
            break
    if wanted is not None and wanted - done > wave.frame_bytes:
        there, promised = (count / wave.frame_bytes / max(1, wave.rate) for count in (done, wanted))
        raise AudioError(
            f"{name}: truncated: {there:.2f} s of the {promised:.2f} s of audio that the header promises; "
            "copy it again, or keep what is there: ffmpeg -i FILE fixed.wav"
        )


def to_float(raw: bytes, wave: WaveFormat) -> NDArray[np.float32]:
    """Whole frames of bytes -> (frames, channels) float32; integers are scaled so that full scale is 1."""
    if wave.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            flat = np.frombuffer(raw, f"<f{wave.width}").astype(np.float32)
    elif wave.width == 1:  # the only unsigned one
        flat = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif wave.width == 3:
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        flat = padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    else:
        flat = np.frombuffer(raw, f"<i{wave.width}").astype(np.float32) / np.float32(2 ** (8 * wave.width - 1))
    return flat.reshape(-1, wave.channels)


def _up_to(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer only at the end: a pipe may hand out less than was asked for."""
    pieces: list[bytes] = []
    while count > 0 and (piece := stream.read(min(count, BLOCK_BYTES))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _exactly(stream: BinaryIO, count: int, name: str) -> bytes:
    body = _up_to(stream, count)
    if len(body) < count:
        raise AudioError(f"{name}: the header of this WAV file is cut short")
    return body


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (piece := stream.read(min(count, BLOCK_BYTES))):
        count -= len(piece)
