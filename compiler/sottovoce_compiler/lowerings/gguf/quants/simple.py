"""Formats without a search: F32, F16, BF16 and Q8_0 (32 values share a scale, 8 bits each).

An importance matrix changes none of them.
"""

import numpy as np

from .arithmetic import Bytes, Float, half_bytes, inverse, little, low_byte

BLOCK = 32
_SIGN = 0x7FFFFFFF
_INFINITE = 0x7F800000


def f32(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 4 * columns): the values themselves, little-endian."""
    return little(rows, "<f4")


def f16(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 2 * columns): rounded half to even, beyond 65504 infinite."""
    return little(rows.astype(np.float16), "<f2")


def bf16(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 2 * columns): the upper half of a float32, rounded half to even."""
    bits = rows.view(np.uint32)
    upper = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return little(upper.astype(np.uint16), "<u2")


def q8_0(rows: Float, importance: Float | None) -> Bytes:
    """(rows, columns) to (rows, 34 bytes for 32 columns): scale = largest magnitude / 127, half away from zero."""
    blocks = rows.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    scaled = blocks * inverse(scale)[:, None]
    whole = np.trunc(scaled)
    whole += np.trunc(2 * (scaled - whole))
    return np.concatenate((half_bytes(scale), low_byte(whole)), axis=1).reshape(len(rows), -1)
