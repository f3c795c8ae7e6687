"""Core ML packages of a bundle as folders, which is what Core ML and its tools open.

A package is a folder of files in the bundle, `NAME.mlpackage/...`. Each is copied out and its SHA-256 checked on the
way; the folder appears whole or not at all.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from sottovoce.bundle import CHUNK, Bundle
from sottovoce.errors import BundleError

SUFFIX = ".mlpackage"


def package_files(bundle: Bundle, package: str) -> list[str]:
    """The names in the bundle of a package's files. Raises BundleError where it has none."""
    found = [name for name in bundle.manifest.files if name.startswith(f"{package}{SUFFIX}/")]
    if not found:
        raise BundleError(f"{bundle.path}: has no {package}{SUFFIX}")
    return found


def unpack(bundle: Bundle, package: str, folder: Path) -> Path:
    """The package as a new folder in `folder`. Raises BundleError for a damaged file."""
    made = folder / f"{package}{SUFFIX}"
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as work:
        for name in package_files(bundle, package):
            to = Path(work) / name  # a bundle's names lead nowhere else, see `archive.check_names`
            to.parent.mkdir(parents=True, exist_ok=True)
            _copy(bundle, name, to)
        os.replace(Path(work) / made.name, made)
    return made


def kept(bundle: Bundle, package: str, cache: Path) -> Path:
    """The package in a folder of its own in `cache`, by what is in it: unpacked once."""
    digest = hashlib.sha256()
    for name in sorted(package_files(bundle, package)):
        digest.update(f"{name} {bundle.manifest.files[name].sha256}\n".encode())
    folder = cache / digest.hexdigest()
    if not (folder / f"{package}{SUFFIX}").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            unpack(bundle, package, folder)
        except OSError:
            if not (folder / f"{package}{SUFFIX}").is_dir():  # another process was first
                raise
    return folder / f"{package}{SUFFIX}"


def cache_folder() -> Path:
    """$SOTTOVOCE_CACHE/coreml, else `sottovoce/coreml` in the user's cache folder on macOS."""
    own = os.environ.get("SOTTOVOCE_CACHE")
    return (Path(own) if own else Path("~/Library/Caches/sottovoce")).expanduser() / "coreml"


def _copy(bundle: Bundle, name: str, to: Path) -> None:
    location, digest = bundle.locate(name), hashlib.sha256()
    with location.path.open("rb") as source, to.open("xb") as target:
        source.seek(location.offset)
        left = location.size
        while left:
            block = source.read(min(CHUNK, left))
            if not block:
                raise BundleError(f"{bundle.path}: {name} is cut short")
            digest.update(block)
            target.write(block)
            left -= len(block)
    if (found := digest.hexdigest()) != (expected := bundle.manifest.files[name].sha256):
        raise BundleError(f"{bundle.path}: {name} is damaged: its SHA-256 is {found}, expected {expected}")
