"""A saved cache comes back as it was, or not at all."""

import numpy as np
import pytest

from sottovoce.engines.chat_state import CacheFormat
from sottovoce.engines.shapes import ChatShape
from sottovoce.errors import InputError

SHAPE = ChatShape(layers=2, kv_heads=3, head_width=16, vocab_size=300, context=64)
FORMAT = CacheFormat(b"svtest01", "digest", SHAPE)
LENGTH = 5
ARRAYS = list(np.random.default_rng(1).standard_normal((4, 3, LENGTH, 16)).astype(np.float32))


def test_what_was_saved_comes_back_bit_for_bit() -> None:
    saved = FORMAT.unpack(FORMAT.pack(ARRAYS, LENGTH), LENGTH, 64)
    assert saved.holds()
    found = list(saved.arrays())
    assert len(found) == 4 and all(np.array_equal(one, other) for one, other in zip(found, ARRAYS, strict=True))


def test_an_empty_sequence_is_one_too() -> None:
    saved = FORMAT.unpack(FORMAT.pack([], 0), 0, 64)
    assert saved.holds() and not list(saved.arrays())


@pytest.mark.parametrize("at", [60, 100, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    state = bytearray(FORMAT.pack(ARRAYS, LENGTH))
    state[at] ^= 1
    assert not FORMAT.unpack(bytes(state), LENGTH, 64).holds()


@pytest.mark.parametrize(
    ("form", "length", "context", "says"),
    [
        (CacheFormat(b"svother1", "digest", SHAPE), LENGTH, 64, "not of this model and engine"),
        (CacheFormat(b"svtest01", "another", SHAPE), LENGTH, 64, "not of this model and engine"),
        (FORMAT, LENGTH + 1, 64, "bytes; 6 positions of this model have"),
        (FORMAT, LENGTH, LENGTH - 1, "at most 4 fit here"),
        (FORMAT, -1, 64, "at most 64 fit here"),
    ],
)
def test_what_does_not_fit_is_refused(form: CacheFormat, length: int, context: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        form.unpack(FORMAT.pack(ARRAYS, LENGTH), length, context)


def test_a_length_that_the_header_does_not_have_is_damage() -> None:
    state = bytearray(FORMAT.pack(ARRAYS, LENGTH))
    state[40:48] = (LENGTH + 1).to_bytes(8, "little")
    with pytest.raises(InputError, match="damaged"):
        FORMAT.unpack(bytes(state), LENGTH, 64)
