import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from tiny_gguf import CHATML, tiny_gguf, tiny_vocabulary

from sottovoce.errors import BundleError
from sottovoce.gguf import KINDS, SkippedArray, read_gguf

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


def text(value: str) -> bytes:
    return U64.pack(len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + U32.pack(kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + U32.pack(len(shape)) + b"".join(map(U64.pack, shape)) + U32.pack(kind) + U64.pack(offset)


def raw(
    *,
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: int = 64,
    version: int = 3,
    **counts: int,
) -> bytes:
    """A file from its pieces; `counts` may lie about how many there are."""
    keys, tensors = keys or [], tensors or []
    head = b"GGUF" + U32.pack(version) + U64.pack(counts.get("tensor_count", len(tensors)))
    head += U64.pack(counts.get("key_count", len(keys))) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return path

    return write


Write = Callable[[bytes], Path]


def test_metadata_and_tensors_are_what_the_formats_own_library_reads(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf", seed=3)
    found, expected = read_gguf(path), reference.GGUFReader(path)
    assert found.version == 3 and found.alignment == 32 and found.data_offset == expected.data_offset
    assert list(found.metadata) == [name for name in expected.fields if not name.startswith("GGUF.")]
    for name, value in found.metadata.items():
        wanted = expected.fields[name].contents()
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == wanted, name
    assert found.metadata["tokenizer.ggml.tokens"] == tiny_vocabulary()[0]
    assert found.metadata["tokenizer.chat_template"] == CHATML
    for one, other in zip(found.tensors.values(), expected.tensors, strict=True):
        assert (one.name, one.offset, one.bytes) == (other.name, other.data_offset, other.n_bytes)
        assert one.shape == tuple(reversed(other.shape.tolist())) and one.kind == other.tensor_type.name
        assert np.array_equal(found.tensor_bytes(one).view(np.float32), other.data.reshape(-1))


def test_a_gguf_within_another_file_reads_the_same_and_ends_where_it_is_said_to(tmp_path: Path) -> None:
    plain = tiny_gguf(tmp_path / "tiny.gguf")
    inside = tmp_path / "archive"
    inside.write_bytes(bytes(4096) + plain.read_bytes() + b"what follows")
    size = plain.stat().st_size
    one, other = read_gguf(plain), read_gguf(inside, 4096, size)
    assert one.tensors.keys() == other.tensors.keys()
    for name, found in other.tensors.items():
        assert found.offset == one.tensors[name].offset + 4096
        assert np.array_equal(other.tensor_bytes(found), one.tensor_bytes(one.tensors[name]))
    with pytest.raises(BundleError, match=f"the file has {size - 1}"):
        read_gguf(inside, 4096, size - 1)
    with pytest.raises(BundleError, match="were asked for"):
        read_gguf(inside, 4096, size + 4096)


def test_every_kind_of_value_is_read_as_itself(write: Write) -> None:
    values = [
        (0, struct.pack("<B", 200), 200),
        (1, struct.pack("<b", -7), -7),
        (2, struct.pack("<H", 65535), 65535),
        (3, struct.pack("<h", -300), -300),
        (4, struct.pack("<I", 4_000_000_000), 4_000_000_000),
        (5, struct.pack("<i", -5), -5),
        (6, struct.pack("<f", 0.5), 0.5),
        (7, b"\1", True),
        (8, text("voilà"), "voilà"),
        (10, struct.pack("<Q", 2**63), 2**63),
        (11, struct.pack("<q", -(2**62)), -(2**62)),
        (12, struct.pack("<d", 1e300), 1e300),
    ]
    found = read_gguf(write(raw(keys=[key(f"k{kind}", kind, data) for kind, data, _ in values]))).metadata
    for kind, _, wanted in values:
        assert found[f"k{kind}"] == wanted and type(found[f"k{kind}"]) is type(wanted)


def test_text_that_is_not_utf8_keeps_its_bytes(write: Write) -> None:
    found = read_gguf(write(raw(keys=[key("k", 8, U64.pack(3) + b"a\xff\xfe")]))).metadata["k"]
    assert isinstance(found, str) and found.encode("utf-8", "surrogateescape") == b"a\xff\xfe"


def test_long_arrays_can_be_passed_over_and_what_follows_is_still_read(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    found = read_gguf(path, skip_arrays_over=100)
    assert found.metadata["tokenizer.ggml.tokens"] == SkippedArray(len(tiny_vocabulary()[0]))
    assert found.metadata["tokenizer.ggml.token_type"] == SkippedArray(len(tiny_vocabulary()[0]))
    assert isinstance(found.metadata["tokenizer.ggml.merges"], list)
    assert found.metadata["tokenizer.chat_template"] == CHATML and found.tensors == read_gguf(path).tensors


def test_block_sizes_are_those_of_the_formats_own_library() -> None:
    wrong_there = {"Q8_1"}  # it counts two float32, ggml-common.h two float16
    for number, (name, block, size) in KINDS.items():
        if number in {int(kind) for kind in reference.GGMLQuantizationType} and name not in wrong_there:
            kind = reference.GGMLQuantizationType(number)
            assert (kind.name, *reference.GGML_QUANT_SIZES[kind]) == (name, block, size)


F32 = 0
BAD: dict[str, tuple[bytes, str]] = {
    "not a GGUF": (b"PK\3\4" + bytes(60), "not a GGUF file"),
    "an empty file": (b"", "the magic needs 4 bytes"),
    "big endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
    "version 1": (raw(version=1), "GGUF version 1"),
    "version 4": (raw(version=4), "GGUF version 4"),
    "2^63 keys": (raw(key_count=2**63), "9223372036854775808 keys"),
    "2^63 tensors": (raw(tensor_count=2**63), "9223372036854775808 tensors"),
    "more keys than bytes": (raw(key_count=1000), "1000 keys"),
    "a key of 2^63 bytes": (raw(keys=[U64.pack(2**63)], data=96), "key 0 of 1 has 9223372036854775808 bytes"),
    "an empty key": (raw(keys=[key("", 0, b"\1")]), "key 0, , is empty"),
    "a key twice": (raw(keys=[key("k", 0, b"\1"), key("k", 0, b"\2")]), "key 1, k, is there twice"),
    "an unknown type": (raw(keys=[key("k", 13, b"\1")]), "key k has type 13"),
    "a text of 2^63 bytes": (raw(keys=[key("k", 8, U64.pack(2**63))]), "key k has 9223372036854775808 bytes"),
    "a text past the end": (raw(keys=[key("k", 8, U64.pack(500))]), "key k needs 500 bytes"),
    "an array of arrays": (raw(keys=[key("k", 9, U32.pack(9) + U64.pack(1) + bytes(12))]), "arrays of arrays"),
    "an array of an unknown type": (raw(keys=[key("k", 9, U32.pack(77) + U64.pack(1))]), "array of type 77"),
    "an array of 2^63 numbers": (raw(keys=[key("k", 9, U32.pack(0) + U64.pack(2**63))]), "9223372036854775808 values"),
    "an array of 2^63 texts": (raw(keys=[key("k", 9, U32.pack(8) + U64.pack(2**63))]), "9223372036854775808 values"),
    "a text of an array past the end": (
        raw(keys=[key("k", 9, U32.pack(8) + U64.pack(2) + text("a") + U64.pack(900))]),
        "key k, text 1 of 2,",
    ),
    "a truth value of 2": (raw(keys=[key("k", 7, b"\2")]), "key k has 2 where only true"),
    "alignment 0": (raw(keys=[key("general.alignment", 4, U32.pack(0))]), "general.alignment is 0"),
    "alignment 48": (raw(keys=[key("general.alignment", 4, U32.pack(48))]), "general.alignment is 48"),
    "alignment 2^31": (raw(keys=[key("general.alignment", 4, U32.pack(1 << 31))]), "general.alignment is 2147483648"),
    "alignment as text": (raw(keys=[key("general.alignment", 8, text("32"))]), "general.alignment is '32'"),
    "a tensor twice": (raw(tensors=[tensor("t", (8,), F32, 0), tensor("t", (8,), F32, 32)]), "tensor t is there twice"),
    "five dimensions": (raw(tensors=[tensor("t", (1,) * 5, F32, 0)]), "tensor t has 5 dimensions"),
    "no dimensions": (raw(tensors=[tensor("t", (), F32, 0)]), "tensor t has 0 dimensions"),
    "a dimension of 0": (raw(tensors=[tensor("t", (0, 8), F32, 0)]), r"tensor t has the shape \(0, 8\)"),
    "a tensor of 2^126 bytes": (raw(tensors=[tensor("t", (2**62, 2**62), F32, 0)]), "tensor t ends at byte"),
    "an unknown tensor type": (raw(tensors=[tensor("t", (8,), 99, 0)]), "tensor t has type 99"),
    "a removed tensor type": (raw(tensors=[tensor("t", (32,), 4, 0)]), "tensor t has type 4"),
    "a row that is no whole block": (raw(tensors=[tensor("t", (33,), 8, 0)]), "Q8_0 needs rows of a multiple of 32"),
    "an offset of 2^63": (raw(tensors=[tensor("t", (8,), F32, 2**63)]), "tensor t ends at byte"),
    "an offset that is not aligned": (raw(tensors=[tensor("t", (2,), F32, 4)]), "tensor t begins at 4"),
    "tensors that overlap": (
        raw(tensors=[tensor("a", (16,), F32, 0), tensor("b", (8,), F32, 32)]),
        "tensor b begins at 32, within tensor a, which ends at 64",
    ),
    "a tensor past the end": (raw(tensors=[tensor("t", (17,), F32, 0)]), "tensor t ends at byte .*; the file has"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named_with_the_file(data: bytes, message: str, write: Write) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read_gguf(write(data))
    assert str(caught.value).count("\n") == 0 and "model.gguf" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.gguf: No such file"):
        read_gguf(tmp_path / "none.gguf")


def test_a_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "tiny.gguf")
    data, end = whole.read_bytes(), read_gguf(whole).data_offset
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, 800), *range(800, end, 97), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(BundleError):
            read_gguf(cut)


def test_flipped_bytes_are_read_or_refused_and_never_anything_else(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "tiny.gguf")
    data, end = whole.read_bytes(), read_gguf(whole).data_offset
    flipped, chance = tmp_path / "flipped.gguf", random.Random(7)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 4))):
            changed[chance.randrange(end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        flipped.write_bytes(changed)
        try:
            found = read_gguf(flipped)
            assert all(one.offset + one.bytes <= len(data) for one in found.tensors.values())
        except BundleError:
            refused += 1
    assert refused > 60  # most flips hit a name or a text, and only change that


def test_a_huge_count_is_refused_before_anything_is_allocated(write: Write) -> None:
    for kind in (0, 8):
        data = raw(keys=[key("k", 9, U32.pack(kind) + U64.pack(2**40))], data=1 << 16)
        tracemalloc.start()
        with pytest.raises(BundleError, match="1099511627776 values"):
            read_gguf(write(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20
