"""Writes a bundle: whole or not at all, and the same bytes for the same content.

Everything is written to a hidden name beside the destination and moved into position once it is on the disk.
Large files are streamed. Knows the bundle's two forms, zip and folder; what the runtime demands of them is in
`sottovoce.archive` and `sottovoce.manifest`, which are used here to write and to check what is written. Knows
nothing of models."""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import sottovoce
from sottovoce.archive import (
    MANIFEST,
    MANIFEST_DIGEST,
    Member,
    Placed,
    check_names,
    directory,
    local_header,
    place,
)
from sottovoce.errors import InputError, SottovoceError
from sottovoce.manifest import FORMAT, MAX_MANIFEST_BYTES, parse_manifest
from sottovoce_compiler.staging import check_destination, staged_file, staged_folder

CHUNK = 1 << 20
_NO_DIGEST = "0" * 64  # as long as the digest that takes its place


@dataclass(frozen=True, slots=True)
class _Digest:
    sha256: str
    crc: int


def write_bundle(
    path: str | os.PathLike[str], manifest_fields: Mapping[str, Any], files: Mapping[str, bytes | Path]
) -> Path:
    """Writes the bundle and returns where it is: a zip when `path` ends in `.svb`, otherwise a folder.

    `files` maps a name within the bundle to its content or to a file to copy. `manifest_fields` is the
    manifest but for `format` and `files`, which are added. What stands at `path` is replaced in one step,
    unless it is something other than a bundle: then InputError, as for a missing parent folder.
    SottovoceError when the disk is full or not writable. Whatever goes wrong, nothing is left behind and what
    was there before stays."""
    destination = check_destination(path)
    check_names([MANIFEST, MANIFEST_DIGEST, *files])
    try:
        sizes = {name: _size(source) for name, source in files.items()}
        draft = _manifest(manifest_fields, sizes, dict.fromkeys(files, _Digest(_NO_DIGEST, 0)))
        parse_manifest(draft, sottovoce.__version__)
        if destination.suffix.lower() == ".svb":
            with staged_file(destination) as file:
                _write_archive(file, manifest_fields, files, sizes, len(draft))
        else:
            with staged_folder(destination) as folder:
                _write_folder(folder, manifest_fields, files, sizes)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise SottovoceError(
            f"{path} was not written: {error.strerror or error}{where}; nothing is left of it"
        ) from error
    return destination


def canonical_json(value: object) -> bytes:
    """JSON with one spelling: keys sorted, indented by one space, UTF-8, a newline at the end, no NaN."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def _manifest(fields: Mapping[str, Any], sizes: Mapping[str, int], digests: Mapping[str, _Digest]) -> bytes:
    """The manifest's bytes; their number does not depend on the digests."""
    if reserved := fields.keys() & {"format", "files"}:
        raise InputError(f"manifest field {min(reserved)!r} is filled in by write_bundle; leave it out")
    entries = {name: {"bytes": sizes[name], "sha256": digests[name].sha256} for name in sizes}
    data = canonical_json({**fields, "format": FORMAT, "files": entries})
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"the manifest has {len(data)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    return data


def _manifest_digest(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def _write_archive(
    out: BinaryIO,
    fields: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    sizes: Mapping[str, int],
    manifest_size: int,
) -> None:
    """The manifest stands first but is written last, when the digests are known: its place is kept for it."""
    fixed = {MANIFEST: manifest_size, MANIFEST_DIGEST: len(_manifest_digest(b""))}
    names = check_names([*fixed, *files])
    placed = {p.member.name: p for p in place([Member(name, {**fixed, **sizes}[name], 0) for name in names])}
    digests = {name: _write_member(out, placed[name], files[name]) for name in names if name in files}
    manifest = _manifest(fields, sizes, digests)
    digests[MANIFEST] = _write_member(out, placed[MANIFEST], manifest)
    digests[MANIFEST_DIGEST] = _write_member(out, placed[MANIFEST_DIGEST], _manifest_digest(manifest))
    out.seek(0, io.SEEK_END)
    out.write(directory([_with_crc(item, digests[name].crc) for name, item in placed.items()]))


def _write_member(out: BinaryIO, placed: Placed, source: bytes | Path) -> _Digest:
    out.seek(placed.data)
    digest = _copy(source, placed.member.size, out.write)
    out.seek(placed.header)
    out.write(local_header(_with_crc(placed, digest.crc)))
    return digest


def _with_crc(placed: Placed, crc: int) -> Placed:
    return replace(placed, member=replace(placed.member, crc=crc))


def _write_folder(
    folder: Path, fields: Mapping[str, Any], files: Mapping[str, bytes | Path], sizes: Mapping[str, int]
) -> None:
    digests = {name: _write_file(folder / name, files[name], sizes[name]) for name in sorted(files)}
    manifest = _manifest(fields, sizes, digests)
    _write_file(folder / MANIFEST_DIGEST, _manifest_digest(manifest), len(_manifest_digest(manifest)))
    _write_file(folder / MANIFEST, manifest, len(manifest))


def _write_file(path: Path, source: bytes | Path, size: int) -> _Digest:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        digest = _copy(source, size, out.write)
        out.flush()
        os.fsync(out.fileno())
    return digest


def _copy(source: bytes | Path, size: int, write: Callable[[bytes], int]) -> _Digest:
    sha256, crc, copied = hashlib.sha256(), 0, 0
    for chunk in _chunks(source):
        write(chunk)
        sha256.update(chunk)
        crc = zlib.crc32(chunk, crc)
        copied += len(chunk)
    if copied != size:
        raise SottovoceError(f"{source!s:.200} changed while it was packed: {size} bytes before, {copied} now")
    return _Digest(sha256.hexdigest(), crc)


def _chunks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _size(source: bytes | Path) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size
