"""A compiled bundle on disk, `.svb` or folder: what it holds, where each byte lies, and whether it is still
whole.

Opening reads the manifest and no more, and believes nothing: the manifest against its own digest, every name,
every size against what is on disk. The contents of a file are checked when it is read, or by `check_file`.
Nothing in a bundle is executed, no name in it leads out of it, and no size is believed before the bytes are
there. Knows nothing of engines, audio or decoding."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sottovoce
from sottovoce.archive import MANIFEST, MANIFEST_DIGEST, read_layout
from sottovoce.cpu import Cpu, this_cpu
from sottovoce.errors import BundleError, MissingExtraError
from sottovoce.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    check_engine_version,
    check_runtime_version,
    load_json,
    parse_manifest,
    printable,
)

REPORT = "report.json"
MAX_REPORT_BYTES = 16 << 20
MAX_READ = 1 << 29  # bytes read whole into memory; weights, which may be larger, are mapped by the engine instead
CHUNK = 1 << 20
MAX_PATH = 500  # characters of a path shown in an error
LLAMA_CPP, COREML, LITERT = "llama.cpp", "coreml", "litert"
# Where an engine is not installed under its own name: what pip is asked for, and what is then there.
_PACKAGES = {
    LLAMA_CPP: "'sottovoce[chat-wheel]'",
    COREML: "'sottovoce[coreml]'",
    LITERT: "'sottovoce[litert]'",
}
_DISTRIBUTIONS = {COREML: "coremltools", LITERT: "ai-edge-litert"}
_NATIVE_TARGETS = {"x86": "linux-x86-64", "arm": "raspberry-pi-4"}  # need least of their kind


@dataclass(frozen=True, slots=True)
class Location:
    """Where a file's bytes lie: `size` bytes from `offset` in `path`, which is the `.svb` itself or a plain
    file.
    """

    path: Path
    offset: int
    size: int


class Bundle:
    """An opened bundle. Holds no file open; made by `open_bundle`.

    `path` is as the user gave it, `folder` the real folder that every location lies in.
    """

    def __init__(self, path: Path, folder: Path, manifest: Manifest, locations: Mapping[str, Location]) -> None:
        self.path = path
        self.folder = folder
        self.manifest = manifest
        self._locations = MappingProxyType(dict(locations))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        files = {location.path for location in self._locations.values()}
        return sum(path.stat().st_size for path in files)

    def report(self) -> dict[str, Any]:
        """What was measured when the bundle was made: `report.json`, or {} when the bundle has none."""
        if REPORT not in self.manifest.files:
            return {}
        data = self.read(REPORT)
        with _named(self.path):
            return load_json(data, REPORT, MAX_REPORT_BYTES)

    def locate(self, name: str) -> Location:
        """Where `name` lies on disk. Raises BundleError when the manifest has no such file."""
        if name not in self.manifest.files:
            raise self._error(f"has no file {name!r}")
        return self._locations[name]

    def read(self, name: str) -> bytes:
        """All of `name`, its SHA-256 checked. Raises BundleError when it is missing, too large or damaged."""
        location, entry = self.locate(name), self.manifest.files[name]
        if location.size > MAX_READ:
            raise self._error(f"{name} has {location.size} bytes, too many to read whole (limit {MAX_READ})")
        with self._open(location) as file:
            data = file.read(location.size)
        self._compare(name, entry, hashlib.sha256(data).hexdigest())
        return data

    def check_file(self, name: str) -> None:
        """Raises BundleError naming the file, the expected and the found SHA-256 when the contents have
        changed.

        Streams through one small buffer and lets other threads run meanwhile.
        """
        location, entry = self.locate(name), self.manifest.files[name]
        digest, left = hashlib.sha256(), location.size
        buffer = memoryview(bytearray(min(CHUNK, max(left, 1))))
        with self._open(location) as file:
            while left:
                count = file.readinto(buffer[:left])
                if not count:
                    raise self._error(f"{name} is cut short: {left} of {location.size} bytes are missing")
                digest.update(buffer[:count])
                left -= count
        self._compare(name, entry, digest.hexdigest())

    def check_all(self) -> list[str]:
        """What is wrong with the files as they are now, one line each; empty when all is well."""
        try:
            open_bundle(self.path)
        except BundleError as error:
            return [str(error)]
        failures = []
        for name in self.manifest.files:
            try:
                self.check_file(name)
            except BundleError as error:
                failures.append(str(error))
        return failures

    def check_runtime(
        self, engine_version: str | None = None, *, runtime_version: str | None = None, cpu: Cpu | None = None
    ) -> list[str]:
        """Whether this runtime, engine and processor can run the bundle; notes worth showing when they can.

        Versions default to what is installed. Raises BundleError that names what to install, or the processor
        feature that is missing and the target to compile for. A feature of another kind of processor, as when
        a bundle for a Pi is tried on the workstation that compiled it, is a note, and so is what cannot be
        known."""
        with _named(self.path):
            return self._check_runtime(engine_version, runtime_version, cpu or this_cpu())

    def _check_runtime(self, engine_version: str | None, runtime_version: str | None, cpu: Cpu) -> list[str]:
        from sottovoce.engines.stand_in import stand_in_for  # beside engines, whose package needs NumPy

        engine, target = self.manifest.engine, self.manifest.target.name
        check_runtime_version(self.manifest.requires_runtime, runtime_version or sottovoce.__version__)
        if stand_in_for(engine.name) is not None:
            return [f"made for {target}: another engine stands in for {engine.name}"]
        if engine.name == COREML and sys.platform != "darwin":
            raise BundleError(
                "made for Core ML, which iOS and macOS have; a workstation measures it with: sottovoce evaluate"
            )
        installed = engine_version or _installed_version(engine.name)
        if installed is None:
            package = _PACKAGES.get(engine.name, engine.name)
            raise BundleError(f"needs {engine.name}, which is not installed: pip install {package}")
        check_engine_version(engine, installed, _DISTRIBUTIONS.get(engine.name))
        if missing := cpu.missing(engine.cpu_features):
            raise BundleError(f"needs a processor with {', '.join(missing)}: {_way_out(target, cpu)}")
        if foreign := cpu.foreign(engine.cpu_features):
            return [f"made for {target} ({', '.join(foreign)}): here, on {cpu.machine}, speed and text may differ"]
        if cpu.features is None and engine.cpu_features:
            return [f"cannot tell whether this processor has {', '.join(engine.cpu_features)}"]
        return []

    def _open(self, location: Location) -> FileIO:
        try:
            file = _open_regular(location.path)
            file.seek(location.offset)
        except OSError as error:
            raise self._error(_reason(error)) from None
        return file

    def _compare(self, name: str, entry: FileEntry, found: str) -> None:
        if found != entry.sha256:
            raise self._error(f"{name} is damaged: its SHA-256 is {found}, expected {entry.sha256}")

    def _error(self, what: str) -> BundleError:
        return BundleError(f"{printable(str(self.path), MAX_PATH)}: {what}")


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle at `path`: a `.svb` file or a folder.

    Reads the manifest alone. Raises BundleError when there is none, when anything about its shape is wrong,
    or when it was made for a newer runtime; warns of keys that this runtime does not know."""
    path = Path(path)
    with _named(path):
        if "\0" in str(path):
            raise BundleError("not a usable path")
        try:
            real = path.resolve(strict=True)
            return _open_folder(path, real) if real.is_dir() else _open_archive(path, real)
        except FileNotFoundError:
            raise BundleError("no such bundle") from None
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
            raise BundleError(_reason(error)) from None


def _open_archive(path: Path, real: Path) -> Bundle:
    with _open_regular(real) as file:
        placed = read_layout(file, os.fstat(file.fileno()).st_size)
        found = {item.member.name: Location(real, item.data, item.member.size) for item in placed}
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in found:
                raise BundleError(f"not a bundle: it has no {name}")
        manifest = _read_manifest(_read_small(file, found[MANIFEST]), _read_small(file, found[MANIFEST_DIGEST]))
    extra = found.keys() - manifest.files.keys() - {MANIFEST, MANIFEST_DIGEST}
    if extra:
        raise BundleError(f"holds {min(extra)}, which its manifest does not name")
    for name, entry in manifest.files.items():
        if name not in found:
            raise BundleError(f"{name} is missing")
        _check_size(name, found[name].size, entry)
    return Bundle(path, real.parent, manifest, {name: found[name] for name in manifest.files})


def _open_folder(path: Path, real: Path) -> Bundle:
    texts = []
    for name in (MANIFEST, MANIFEST_DIGEST):
        location = _locate_in_folder(real, name)
        with _open_regular(location.path) as file:
            texts.append(_read_small(file, location))
    manifest = _read_manifest(*texts)
    found = {}
    for name, entry in manifest.files.items():
        found[name] = _locate_in_folder(real, name)
        _check_size(name, found[name].size, entry)
    return Bundle(path, real, manifest, found)


def _locate_in_folder(folder: Path, name: str) -> Location:
    """The regular file `name`; a symbolic link is followed only to somewhere within the folder."""
    try:
        real = (folder / name).resolve(strict=True)
        status = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{name}: {_reason(error)}") from None
    if not real.is_relative_to(folder):
        raise BundleError(f"{name} is a link that leaves the bundle; copy the file itself into it")
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{name} is not a regular file")
    return Location(real, 0, status.st_size)


def _read_manifest(data: bytes, digest: bytes) -> Manifest:
    """The manifest, once it is the one that `manifest.sha256` speaks of."""
    found = hashlib.sha256(data).hexdigest()
    if digest != found.encode() + b"\n":
        raise BundleError(
            f"{MANIFEST} or {MANIFEST_DIGEST} is damaged: the SHA-256 is {found}, which is not the one noted"
        )
    return parse_manifest(data, sottovoce.__version__)


def _read_small(file: FileIO, location: Location) -> bytes:
    if location.size > MAX_MANIFEST_BYTES:
        raise BundleError(f"its manifest has {location.size} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    file.seek(location.offset)
    return file.read(location.size)


def _check_size(name: str, found: int, entry: FileEntry) -> None:
    if found != entry.bytes:
        raise BundleError(f"{name} is damaged: it has {found} bytes, expected {entry.bytes}")


def _open_regular(path: Path) -> FileIO:
    """A pipe or a device in the place of a file is refused, without waiting for it."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = FileIO(os.open(path, flags), "r")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError("not a regular file")
    return file


def _installed_version(engine: str) -> str | None:
    """Of the module in use if there is one: its distribution may go by another name (onnxruntime-gpu)."""
    if engine == LLAMA_CPP:
        from sottovoce.engines.llama_cpp.library import find_binding

        try:
            return find_binding().version
        except MissingExtraError:
            return None
    if engine == LITERT:
        from sottovoce.engines.litert_model import installed_version

        return installed_version()
    version = getattr(sys.modules.get(engine), "__version__", None)
    if isinstance(version, str):
        return version
    from importlib import (
        metadata,  # slow to import, and rarely needed: engines are asked once they are loaded
    )

    try:
        return metadata.version(_DISTRIBUTIONS.get(engine, engine))
    except metadata.PackageNotFoundError:
        return None


def _way_out(target: str, cpu: Cpu) -> str:
    native = _NATIVE_TARGETS.get(cpu.machine)
    if native and native != target:
        return f"it was made for {target}; compile the model with --target {native} for this one"
    return f"it was made for {target}; `sottovoce targets` lists others"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the bundle's path before the message of a BundleError raised inside."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{printable(str(path), MAX_PATH)}: {error}") from None
