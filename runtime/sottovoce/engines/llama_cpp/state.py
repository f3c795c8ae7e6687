"""A saved sequence: llama.cpp's own bytes behind a header that says whose they are, and that they are whole.

llama.cpp trusts what it is given, so a state is opened only for the same model file, adapters and version of llama.cpp,
as its digest says. Layout: magic (8 bytes), SHA-256 of all that follows (32), identity (32), number of tokens (8,
little endian), the tokens (int32 each), llama.cpp's bytes.
"""

import hashlib
import struct

import numpy as np

from sottovoce.errors import InputError
from sottovoce.gguf import GgufFile

_MAGIC = b"SVKV0001"
_HEAD = struct.Struct("<32sQ")
_SAMPLES, _SAMPLE = 64, 4096  # pieces of the weights that tell two models of one shape apart, and their bytes


def fingerprint(gguf: GgufFile) -> bytes:
    """What tells a model file from others, in milliseconds: SHA-256 of its header, its size, and samples of weights."""
    digest = hashlib.sha256(gguf.size.to_bytes(8, "little"))
    end = gguf.offset + gguf.size
    with gguf.path.open("rb") as file:
        file.seek(gguf.offset)
        left = gguf.data_offset - gguf.offset
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        for index in range(_SAMPLES):
            file.seek(gguf.data_offset + (end - gguf.data_offset) * index // _SAMPLES)
            digest.update(file.read(min(_SAMPLE, end - file.tell())))
    return digest.digest()


def pack(identity: bytes, tokens: list[int], data: bytes) -> bytes:
    """The state of a sequence of `tokens`; `identity` is 32 bytes."""
    body = _HEAD.pack(identity, len(tokens)) + np.array(tokens, "<i4").tobytes()
    digest = hashlib.sha256(body)
    digest.update(data)
    return b"".join((_MAGIC, digest.digest(), body, data))


def unpack(state: bytes | memoryview, identity: bytes, length: int, vocabulary: int) -> tuple[list[int], memoryview]:
    """Tokens and llama.cpp's bytes. Raises InputError for what is damaged, or not of this engine and `length`."""
    view, start = memoryview(state), len(_MAGIC) + 32
    if len(view) < start + _HEAD.size or bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise InputError("not a saved state of this engine")
    if hashlib.sha256(view[start:]).digest() != view[len(_MAGIC) : start]:
        raise InputError("the saved state is damaged: its SHA-256 is not the one noted")
    found, count = _HEAD.unpack_from(view, start)
    if found != identity:
        raise InputError("the saved state is of another model, other adapters or another version of llama.cpp")
    end = start + _HEAD.size + 4 * count
    if count != length or end > len(view):
        raise InputError(f"the saved state has {count} positions, expected {length}")
    tokens = np.frombuffer(view[start + _HEAD.size : end], "<i4")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocabulary:
        raise InputError("the saved state has tokens that the model does not")
    return tokens.tolist(), view[end:]
