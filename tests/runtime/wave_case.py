"""WAV files put together by hand, so that each of their fields can be wrong."""

import struct

import numpy as np
from numpy.typing import NDArray


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.5) -> NDArray[np.float32]:
    """A sine (samples,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def encode(samples: NDArray[np.float32], kind: str) -> bytes:
    """Samples (n,) or (n, channels) within -1..1 as the bytes of one of the kinds u8 i16 i24 i32 f32 f64."""
    if kind[0] == "f":
        return bytes(samples.astype(f"<f{int(kind[1:]) // 8}").tobytes())
    bits = int(kind[1:])
    values = np.clip(np.round(samples.astype(np.float64) * 2 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if kind == "u8":
        return bytes((values + 128).astype(np.uint8).tobytes())
    whole = values.astype("<i4").reshape(-1, 1).view(np.uint8)
    return bytes(whole[:, : bits // 8].tobytes())


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """One RIFF chunk with its padding; `size` is what the header claims."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def fmt(rate: int, channels: int, kind: str, *, tag: int | None = None, extensible: bool = False) -> bytes:
    """A fmt chunk."""
    bits = int(kind[1:])
    plain = tag if tag is not None else 3 if kind[0] == "f" else 1
    frame = channels * bits // 8
    body = struct.pack("<HHIIHH", 0xFFFE if extensible else plain, channels, rate, rate * frame, frame, bits)
    if extensible:
        guid = struct.pack("<H", plain) + bytes.fromhex("000000001000800000aa00389b71")
        body += struct.pack("<HHI", 22, bits, 0) + guid
    return chunk(b"fmt ", body)


def riff(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None) -> bytes:
    """Chunks as a file."""
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def wave(samples: NDArray[np.float32], rate: int = 16_000, kind: str = "i16", *, extensible: bool = False) -> bytes:
    """A sound WAV file of samples (n,) or (n, channels)."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    return riff(fmt(rate, channels, kind, extensible=extensible), chunk(b"data", encode(samples, kind)))
