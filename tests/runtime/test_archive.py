import io
import random
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce import archive
from sottovoce.archive import ALIGNMENT, Member, check_names, directory, local_header, place, read_layout
from sottovoce.errors import BundleError

CONTENTS = {"manifest.json": b"{}", "a.bin": b"0123456789" * 300, "golden/b.wav": b"", "z.bin": b"z" * 5000}


def build(contents: dict[str, bytes]) -> bytes:
    placed = place([Member(name, len(data), zlib.crc32(data)) for name, data in contents.items()])
    body = b"".join(local_header(item) + contents[item.member.name] for item in placed)
    return body + directory(placed)


def read(data: bytes) -> list[archive.Placed]:
    return read_layout(io.BytesIO(data), len(data))


def test_what_is_written_is_read_back() -> None:
    data = build(CONTENTS)
    found = {item.member.name: data[item.data : item.end] for item in read(data)}
    assert found == CONTENTS


def test_every_member_begins_at_a_multiple_of_the_alignment() -> None:
    assert all(item.data % ALIGNMENT == 0 for item in read(build(CONTENTS)))


@pytest.mark.parametrize("limit", [0xFFFFFFFF, 6000, 4500, 1000])
def test_pythons_zipfile_agrees_with_both_the_small_and_the_large_form(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ZIP32_LIMIT", limit)  # so that a few kilobytes are written as zip64
    data = build(CONTENTS)
    with zipfile.ZipFile(io.BytesIO(data)) as other:
        assert other.testzip() is None
        assert {name: other.read(name) for name in other.namelist()} == CONTENTS
        assert {info.date_time for info in other.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [item.member.name for item in read(data)] == list(CONTENTS)


@pytest.mark.parametrize("limit", [0xFFFFFFFF, 4500])
def test_a_flipped_bit_in_any_byte_that_is_not_data_is_found(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ZIP32_LIMIT", limit)
    data = bytearray(build({"manifest.json": b"{}", "a.bin": b"A" * 5000}))
    content = {at for item in read(bytes(data)) for at in range(item.data, item.end)}
    chance = random.Random(0)
    missed = []
    for at in sorted(set(range(len(data))) - content):
        good = data[at]
        data[at] ^= 1 << chance.randrange(8)
        with suppress(BundleError):
            read(bytes(data))
            missed.append(at)
        data[at] = good
    assert not missed
    assert len(content) == 5002


def test_a_truncated_or_extended_archive_is_refused_at_every_length() -> None:
    data = build({"manifest.json": b"{}", "a.bin": b"A" * 100})
    for length in [*range(0, 200), *range(len(data) - 200, len(data))]:
        with pytest.raises(BundleError, match="damaged"):
            read(data[:length])
    with pytest.raises(BundleError, match="damaged"):
        read(data + b"\0")
    with pytest.raises(BundleError, match="damaged"):
        read(b"\0" + data)


def test_a_zip_that_another_tool_packed_is_refused_and_the_message_says_so() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("manifest.json", "{}")
    with pytest.raises(BundleError, match="not a zip that `sottovoce compile` wrote"):
        read(out.getvalue())


def test_an_absurd_size_in_the_directory_is_refused_before_anything_is_allocated() -> None:
    placed = place([Member("manifest.json", 2, 0), Member("a.bin", 1 << 62, 0)])
    forged = bytearray(local_header(placed[0]) + b"{}")
    central = directory([*placed[:1], archive.Placed(placed[1].member, len(forged), 8192)])
    records = central[: -(22 + 20 + 56)]
    end = archive._END.pack(b"PK\5\6", 0, 0, 2, 2, len(records), len(forged), 0)
    with pytest.raises(BundleError, match=f"{1 << 62} bytes"):
        read(bytes(forged) + records + end)


UNSAFE = "|/a|../a|a/../b|a//b|a/|a\\b|C:a|a\0|é|a b|.hidden|a/.b|-a|a.|nul|Con.txt|x/lpt1|a\n"


@pytest.mark.parametrize("name", [*UNSAFE.split("|"), "a" * 201])
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="is not allowed"):
        check_names([name])


@pytest.mark.parametrize("names", [["a", "a"], ["a", "A"], ["a", "a/b"], ["x/A", "X/a/b"]])
def test_names_that_cannot_stand_together_are_refused(names: list[str]) -> None:
    with pytest.raises(BundleError, match=r"twice|inside"):
        check_names(names)


def test_more_members_than_allowed_are_refused() -> None:
    with pytest.raises(BundleError, match="1025"):
        check_names(f"f{index}" for index in range(1025))


def test_names_are_ordered_with_the_manifest_first() -> None:
    assert check_names(["b", "manifest.json", "a"]) == ["manifest.json", "a", "b"]


@given(data=st.data())
def test_only_bundle_errors_come_out_of_a_damaged_archive(data: st.DataObject) -> None:
    good = build({"manifest.json": b"{}", "a.bin": b"A" * 10})
    tail = len(good) - 150
    base = bytearray(good if data.draw(st.booleans()) else good[tail:])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(max(0, len(base) - 150), len(base) - 1))
        base[at] = data.draw(st.integers(0, 255))
    damaged = bytes(base) + data.draw(st.binary(max_size=4))
    try:
        members = read(damaged)
    except BundleError:
        return
    for item in members:  # their data is for the SHA-256 to judge
        damaged = damaged[: item.data] + good[item.data : item.end] + damaged[item.end :]
    assert damaged == good


@given(st.binary(max_size=400))
def test_only_bundle_errors_come_out_of_random_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


def test_the_member_data_offset_is_right_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(build(CONTENTS))
    with path.open("rb") as file:
        for item in read_layout(file, path.stat().st_size):
            file.seek(item.data)
            assert file.read(item.member.size) == CONTENTS[item.member.name]
