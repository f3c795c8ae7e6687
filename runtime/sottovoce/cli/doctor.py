"""`sottovoce doctor`: what this machine can run, what to install for the rest, whether a bundle fits.

Knows what the extras are for and how to ask the system for memory. Knows nothing of how anything is run.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sottovoce import __version__
from sottovoce.cli import DONE, FAILED
from sottovoce.errors import BundleError, InputError

EXAMPLE = """\
  sottovoce doctor
  sottovoce doctor whisper-base.svb
"""

# Those of the processor's features that decide how fast integer and half-precision products are.
SHOWN_FEATURES = (
    "avx", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "f16c", "fma",
    "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve",
)  # fmt: skip
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Part:
    """Something that is installed separately, as `package`."""

    name: str
    purpose: str
    package: str
    install: str


ENGINES = (Part("onnxruntime", "runs speech bundles", "onnxruntime", "pip install onnxruntime"),)
EXTRAS = (
    Part("audio", "recordings other than WAV", "soundfile", "pip install 'sottovoce[audio]'"),
    Part("mic", "the microphone, for listen", "sounddevice", "pip install 'sottovoce[mic]'"),
    Part(
        "compiler",
        "make bundles, on a workstation",
        "sottovoce-compiler",
        "pip install sottovoce-compiler",
    ),
)


@dataclass(frozen=True)
class Fit:
    """Whether a bundle can run here; `reasons` say why not, `notes` what to know."""

    fits: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="a bundle that should run here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when a bundle is given and cannot run here."""
    if args.bundle is not None and not args.bundle.exists():
        raise InputError(f"{args.bundle}: no such bundle")
    fit = None if args.bundle is None else check_fit(args.bundle)
    print(json.dumps(_as_json(fit), ensure_ascii=False) if args.json else "\n".join(_as_text(fit)))
    return FAILED if fit and not fit.fits else DONE


def check_fit(path: Path) -> Fit:
    """Whether this runtime, engine, processor and memory can run the bundle at `path`."""
    from sottovoce.bundle import open_bundle

    try:
        bundle = open_bundle(path)
        notes = tuple(bundle.check_runtime())
    except BundleError as error:
        return Fit(False, (str(error),), ())
    available = available_memory()
    if available is None:
        return Fit(True, (), (*notes, "this system does not say how much memory is free"))
    if bundle.size > available:
        needs, has = bundle.size / MEGABYTE, available / MEGABYTE
        return Fit(False, (f"{path}: {needs:.0f} MB of weights, and {has:.0f} MB of memory are free",), notes)
    return Fit(True, (), notes)


def available_memory() -> int | None:
    """Bytes that a new process can have without swapping: the system's or the control group's limit."""
    limits = [_meminfo(), _cgroup_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")]
    known = [limit for limit in limits if limit is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_left(limit: str, used: str) -> int | None:
    try:
        return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
    except (OSError, ValueError):  # no control groups, or "max"
        return None


def _as_json(fit: Fit | None) -> dict[str, Any]:
    missing = [part for part in (*ENGINES, *EXTRAS) if not _version(part)]
    return {
        "engines": {part.name: _version(part) for part in ENGINES},
        "extras": {part.name: _version(part) for part in EXTRAS},
        "missing": [asdict(part) for part in missing],
        "fits": None if fit is None else fit.fits,
        "reasons": [] if fit is None else list(fit.reasons),
        "notes": [] if fit is None else list(fit.notes),
        "machine": _machine(),
    }


def _as_text(fit: Fit | None) -> Iterator[str]:
    machine = _machine()
    features = machine["cpu_features"]
    yield f"sottovoce {__version__}, Python {machine['python']}, {machine['system']}"
    known = "features unknown" if features is None else " ".join(features)
    yield f"processor   {machine['cores']} cores; {known}"
    memory = machine["available_memory_mb"]
    yield f"memory      {'unknown' if memory is None else f'{memory} MB'} free"
    for part in (*ENGINES, *EXTRAS):
        found = _version(part)
        yield f"{part.name:<11} {f'ok ({found})' if found else f'missing: {part.install}':<24} {part.purpose}"
    if fit is not None:
        yield f"bundle      {'fits this machine' if fit.fits else 'cannot run here'}"
        yield from (f"            {line}" for line in (*fit.reasons, *fit.notes))


def _machine() -> dict[str, Any]:
    from sottovoce.cpu import this_cpu

    features, available = this_cpu().features, available_memory()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu_features": None if features is None else [name for name in SHOWN_FEATURES if name in features],
        "available_memory_mb": None if available is None else available // MEGABYTE,
    }


def _version(part: Part) -> str | None:
    try:
        return version(part.package)
    except PackageNotFoundError:
        return None
