"""Makes a file or a folder appear whole: written under a hidden name beside the destination, then moved over
it.

The hidden name is derived from the destination's, and its writer holds a lock on it for as long as it lives.
So the next writer of the same destination can tell what a killed one left, and removes it. Knows of bundles
only how to recognise one, so as to replace nothing else."""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from sottovoce.archive import MANIFEST, MANIFEST_DIGEST
from sottovoce.errors import InputError, SottovoceError

_NEW, _OLD = ".new", ".old"  # being written; the replaced one, for the moment between two renames


def check_destination(path: str | os.PathLike[str]) -> Path:
    """The absolute path that a bundle may be written to; raises InputError when it may not.

    Cheap, so that a compile can ask before it starts. A symbolic link is followed.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} is not a usable path")
    try:
        real = Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} cannot be written: {error}") from None
    if not real.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {real.parent}; create it first")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write in {real.parent}")
    if not real.exists():
        return real
    if real.suffix.lower() == ".svb":
        if not real.is_file():
            raise InputError(f"{path} exists and is not a file; choose another name")
    elif not real.is_dir():
        raise InputError(f"{path} exists and is not a folder; end the name in .svb to write one file")
    else:
        _check_is_bundle(path, real)
    return real


@contextmanager
def staged_file(destination: Path) -> Iterator[BinaryIO]:
    """A file to write and seek in, which becomes `destination` when the block ends well and vanishes when it
    does not.
    """
    _sweep(destination)
    temporary = _hidden(destination, _NEW)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, destination)
        _sync_folder(destination.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(destination: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `destination` when the block ends well and vanishes when it does
    not.
    """
    with workspace(destination) as temporary:
        yield temporary
        for folder, _, _ in os.walk(temporary):
            _sync_folder(Path(folder))
        _move_over(temporary, destination)
        _sync_folder(destination.parent)


@contextmanager
def workspace(destination: Path) -> Iterator[Path]:
    """An empty folder beside `destination`, on its disk, for what is needed on the way to it; vanishes when the
    block ends.

    A full disk names no file of itself: SottovoceError with the destination instead.
    """
    _sweep(destination)
    temporary = _hidden(destination, _NEW)
    temporary.mkdir()
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield temporary
    except OSError as error:
        if error.filename is not None:
            raise
        raise SottovoceError(f"{destination} was not written: {error.strerror}; nothing is left of it") from error
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)


def _move_over(new: Path, destination: Path) -> None:
    """A folder can't take the place of a full one in one step, so the old one steps aside until the new one
    stands.
    """
    if not destination.exists():
        os.rename(new, destination)
        return
    aside = _hidden(destination, _OLD)
    os.rename(destination, aside)
    try:
        os.rename(new, destination)
    except BaseException:
        os.rename(aside, destination)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _check_is_bundle(shown: str | os.PathLike[str], folder: Path) -> None:
    """Refuses a folder that holds anything a bundle's manifest does not name, since replacing it would delete
    that.
    """
    present = {item.relative_to(folder).as_posix() for item in folder.rglob("*") if not item.is_dir()}
    if not present:
        return
    try:
        named = set(json.loads((folder / MANIFEST).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{shown} is a folder and not a bundle; choose another name, or empty it first") from None
    if strangers := present - named - {MANIFEST, MANIFEST_DIGEST}:
        raise InputError(f"{shown} holds {min(strangers)!r}, which is not part of the bundle there; move it away first")


def _hidden(destination: Path, ending: str) -> Path:
    return destination.with_name(_prefix(destination) + secrets.token_hex(4) + ending)


def _prefix(destination: Path) -> str:
    """Of fixed length, since the destination's own name may be as long as the file system allows."""
    return f".sottovoce-{sha256(os.fsencode(destination.name)).hexdigest()[:16]}-"


def _sweep(destination: Path) -> None:
    """Removes what killed writers of `destination` left; puts back the bundle that one of them had moved
    aside.
    """
    for item in sorted(destination.parent.glob(_prefix(destination) + "*")):
        with suppress(OSError):
            if item.suffix == _OLD:
                if destination.exists():
                    shutil.rmtree(item)
                else:
                    os.rename(item, destination)
            elif item.suffix == _NEW and _is_abandoned(item):
                shutil.rmtree(item) if stat.S_ISDIR(item.lstat().st_mode) else item.unlink()


def _is_abandoned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had; it goes when the descriptor is closed, at the latest when its process
    dies.
    """
    try:
        import fcntl
    except ImportError:  # Windows: no such locks; what a killed writer left is for the user to remove
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """So that the names in it outlast a power cut; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
