"""The zip form of a bundle (`.svb`): one exact layout, which the compiler writes and the runtime demands.

A bundle's zip leaves nothing open: once the names, sizes and CRC-32s of its members are known, every other
byte of the file follows from them. `read_layout` takes those three from the central directory, lays the
archive out anew, and compares headers, padding and directory with the file byte for byte. So a changed bit
outside the members' own data is found here, and one inside is found by its SHA-256.

Any zip tool reads the result. Members are stored, not compressed, and the data of each begins at a multiple
of `ALIGNMENT`, so that an engine can map it where it lies. Larger archives follow the zip64 rules of PKWARE's
APPNOTE 6.3, section 4.5.3. Knows nothing of manifests and digests."""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from sottovoce.errors import BundleError

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"

ALIGNMENT = 4096  # bytes: the page size of nearly every device, and a multiple of every tensor's alignment
MAX_MEMBERS = 1024
MAX_NAME = 200  # characters, all ASCII
ZIP32_LIMIT = 0xFFFFFFFF  # a size or offset from here on is written as zip64
MAX_DIRECTORY = MAX_MEMBERS * (46 + MAX_NAME + 28) + 98  # bytes: central directory, zip64 fields and end records

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_PADDING = struct.Struct("<3H")  # id 0xD935 as Android's zip tools use it: length, alignment, then zeros
_PADDING_ID = 0xD935
_DATE = 0x21  # 1 January 1980, the earliest a zip can say
_UNIX = 0x0300
_FILE_MODE = 0o100644 << 16

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: size in bytes, CRC-32 of its data."""

    name: str
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A member and where its header and its data begin, in bytes from the start of the archive."""

    member: Member
    header: int
    data: int

    @property
    def end(self) -> int:
        """The first byte after the member's data."""
        return self.data + self.member.size


def check_names(names: Iterable[str]) -> list[str]:
    """The names in the order of a bundle: manifest.json, then sorted.

    A name must be safe on every file system a bundle may be unpacked on: plain ASCII parts separated by "/",
    none of them hidden, "..", ending in a dot or reserved by Windows, and no two that differ in case alone.
    Raises BundleError naming the first that is not."""
    ordered = sorted(names, key=lambda name: (name != MANIFEST, name))
    if len(ordered) > MAX_MEMBERS:
        raise BundleError(f"{len(ordered)} files, more than the {MAX_MEMBERS} a bundle may hold")
    seen: set[str] = set()
    for name in ordered:
        _check_name(name)
        if name.lower() in seen:
            raise BundleError(f"file {name!r} is there twice (letter case does not count)")
        seen.add(name.lower())
    for name in seen:
        parts = name.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise BundleError(f"file {name!r} lies inside another file")
    return ordered


def _check_name(name: str) -> None:
    parts = name.split("/")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BundleError(
            f"file name {name[:MAX_NAME]!r} is not allowed: "
            "letters, digits, '.', '_' and '-', in parts separated by '/'"
        )
    if any(part.endswith(".") or _DEVICE_NAME.fullmatch(part) for part in parts):
        raise BundleError(f"file name {name!r} is not allowed: some file systems cannot hold it")


def place(members: Sequence[Member]) -> list[Placed]:
    """Where each member lies when they are written one after the other."""
    placed, offset = [], 0
    for member in members:
        least = offset + _LOCAL.size + len(member.name) + len(_zip64(member)) + _PADDING.size
        item = Placed(member, offset, least + -least % ALIGNMENT)
        placed.append(item)
        offset = item.end
    return placed


def local_header(placed: Placed) -> bytes:
    """Every byte from the member's header up to its data, the padding included."""
    member = placed.member
    zip64 = _zip64(member)
    fill = placed.data - placed.header - _LOCAL.size - len(member.name) - len(zip64) - _PADDING.size
    extra = zip64 + _PADDING.pack(_PADDING_ID, 2 + fill, ALIGNMENT) + bytes(fill)
    size = 0xFFFFFFFF if zip64 else member.size
    fixed = _LOCAL.pack(
        b"PK\3\4", 45 if zip64 else 20, 0, 0, 0, _DATE, member.crc, size, size, len(member.name), len(extra)
    )
    return fixed + member.name.encode("ascii") + extra


def directory(placed: Sequence[Placed]) -> bytes:
    """Every byte after the last member's data: the central directory and its end records."""
    start = placed[-1].end if placed else 0
    central = b"".join(map(_central_header, placed))
    end64 = b""
    short_start = start
    if start >= ZIP32_LIMIT:
        count, short_start = len(placed), 0xFFFFFFFF
        end64 = _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX | 45, 45, 0, 0, count, count, len(central), start)
        end64 += _LOCATOR64.pack(b"PK\6\7", 0, start + len(central), 1)
    end = _END.pack(b"PK\5\6", 0, 0, len(placed), len(placed), len(central), short_start, 0)
    return central + end64 + end


def _zip64(member: Member) -> bytes:
    return struct.pack("<2H2Q", 1, 16, member.size, member.size) if member.size >= ZIP32_LIMIT else b""


def _central_header(placed: Placed) -> bytes:
    member, wide = placed.member, b""
    size, offset = member.size, placed.header
    if size >= ZIP32_LIMIT:
        wide, size = struct.pack("<2Q", size, size), 0xFFFFFFFF
    if offset >= ZIP32_LIMIT:
        wide, offset = wide + struct.pack("<Q", offset), 0xFFFFFFFF
    extra = struct.pack("<2H", 1, len(wide)) + wide if wide else b""
    version = 45 if wide else 20
    name = member.name.encode("ascii")
    fixed = _CENTRAL.pack(
        b"PK\1\2", _UNIX | version, version, 0, 0, 0, _DATE, member.crc, size, size,
        len(name), len(extra), 0, 0, 0, _FILE_MODE, offset,
    )  # fmt: skip
    return fixed + name + extra


def read_layout(file: BinaryIO, size: int) -> list[Placed]:
    """The members of the archive of `size` bytes, after checking every byte that is not a member's data.

    Raises BundleError when the file is no zip, is cut short, or differs anywhere from the layout above.
    """
    count, start = _find_directory(file, size)
    found = _read_at(file, start, size - start)
    members = _parse_directory(found, count, size)
    if [member.name for member in members] != check_names(member.name for member in members):
        raise _damaged("its members are out of order")
    placed = place(members)
    if directory(placed) != found:
        raise _damaged("its directory is not as it was written")
    for item in placed:
        if _read_at(file, item.header, item.data - item.header) != local_header(item):
            raise _damaged(f"the header of {item.member.name} is not as it was written")
    return placed


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Number of members, and where the central directory begins; bounded, but not yet believed."""
    if size < _END.size:
        raise _damaged(f"{size} bytes are too few")
    signature, _, _, _, count, length, start, _ = _END.unpack(_read_at(file, size - _END.size, _END.size))
    if signature != b"PK\5\6":
        raise _damaged("its end is missing")
    tail = _END.size
    if start == 0xFFFFFFFF:
        tail += _END64.size + _LOCATOR64.size
        if size < tail:
            raise _damaged("its end is missing")
        *_, length, start = _END64.unpack(_read_at(file, size - tail, _END64.size))
    if count > MAX_MEMBERS or start + length + tail != size or size - start > MAX_DIRECTORY:
        raise _damaged("its directory does not fit")
    return count, start


def _parse_directory(found: bytes, count: int, size: int) -> list[Member]:
    """Names, sizes and CRCs alone: the rest is compared afterwards, as a whole."""
    members, at = [], 0
    for _ in range(count):
        if at + _CENTRAL.size > len(found):
            raise _damaged("its directory is cut short")
        fields = _CENTRAL.unpack_from(found, at)
        crc, length, name_length, extra_length = fields[7], fields[9], fields[10], fields[11]
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length
        if at > len(found) or (length == 0xFFFFFFFF and extra_length < 12):
            raise _damaged("its directory is cut short")
        if length == 0xFFFFFFFF:
            (length,) = struct.unpack_from("<Q", found, extra_at + 4)
        name = found[name_at:extra_at].decode("ascii", "replace")
        if length > size:
            raise _damaged(f"{name!r} says it has {length} bytes, the whole file has {size}")
        members.append(Member(name, length, crc))
    return members


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise _damaged("it is cut short")
    return data


def _damaged(what: str) -> BundleError:
    return BundleError(f"damaged, or not a zip that `sottovoce compile` wrote: {what}")
