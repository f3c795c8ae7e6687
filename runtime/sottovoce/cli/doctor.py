"""`sottovoce doctor`: what this machine can run, what to install for the rest, whether a bundle fits, and how fast.

Knows how to print the answers; the package `doctor` finds them.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sottovoce import __version__
from sottovoce.cli import DONE, FAILED
from sottovoce.doctor.parts import NOT_INSTALLED
from sottovoce.errors import InputError
from sottovoce.memory import reported_bytes

if TYPE_CHECKING:
    from sottovoce.doctor.fit import Fit
    from sottovoce.doctor.outlook import Outlook
    from sottovoce.doctor.parts import Found
    from sottovoce.doctor.speed import Speed

EXAMPLE = """\
  sottovoce doctor
  sottovoce doctor whisper-base.svb
  sottovoce doctor smollm2.gguf
"""

# Those of the processor's features that decide how fast integer and half-precision products are.
SHOWN_FEATURES = (
    "avx", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "f16c", "fma",
    "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve",
)  # fmt: skip
MEGABYTE = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "bundle", metavar="BUNDLE", type=Path, nargs="?", help="a bundle, or a .gguf file, that should run"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when a bundle is given and cannot run here."""
    from sottovoce.doctor.fit import check_fit
    from sottovoce.doctor.outlook import outlook
    from sottovoce.doctor.parts import look
    from sottovoce.doctor.speed import measure_speed

    if args.bundle is not None and not args.bundle.exists():
        raise InputError(f"{args.bundle}: no such bundle")
    found = look()
    speed = measure_speed()
    expected = list(outlook(speed, reported_bytes())) if speed is not None and args.bundle is None else []
    fit = None if args.bundle is None else check_fit(args.bundle)
    if args.json:
        print(json.dumps(_as_json(found, speed, expected, fit), ensure_ascii=False))
    else:
        print("\n".join(_as_text(found, speed, expected, fit)))
    return FAILED if fit and not fit.fits else DONE


def _as_json(
    found: "Sequence[Found]", speed: "Speed | None", expected: "Sequence[Outlook]", fit: "Fit | None"
) -> dict[str, Any]:
    return {
        "engines": {one.part.name: one.version for one in found if one.part.is_engine},
        "extras": {one.part.name: one.version for one in found if not one.part.is_engine},
        "missing": [
            asdict(one.part) | {"install": one.install, "problem": one.problem} for one in found if one.is_missing
        ],
        "fits": None if fit is None else fit.fits,
        "reasons": [] if fit is None else list(fit.reasons),
        "notes": [] if fit is None else list(fit.notes),
        "bundle": None if fit is None else _measured(fit),
        "machine": _machine(),
        "speed": None if speed is None else asdict(speed),
        "outlook": [asdict(one) for one in expected],
    }


def _measured(fit: "Fit") -> dict[str, Any]:
    """What was found of the bundle, beside what stands apart."""
    return {key: value for key, value in asdict(fit).items() if key not in ("fits", "reasons", "notes")}


def _as_text(
    found: "Sequence[Found]", speed: "Speed | None", expected: "Sequence[Outlook]", fit: "Fit | None"
) -> Iterator[str]:
    machine = _machine()
    features = machine["cpu_features"]
    yield f"sottovoce {__version__}, Python {machine['python']}, {machine['system']}"
    known = "features unknown" if features is None else " ".join(features)
    yield f"processor   {machine['cores']} cores; {known}"
    memory = machine["available_memory_mb"]
    yield f"memory      {'unknown' if memory is None else f'{memory} MB'} free"
    if speed is not None:
        yield f"speed       {speed.gflops:.0f} GFLOP/s in float32, {speed.gb_per_s:.1f} GB/s from memory"
    for part in found:
        yield from _part_lines(part)
    if fit is not None:
        yield from _fit_lines(fit)
    if expected:
        yield ""
        yield "could run, reckoned from speed and memory (sottovoce bench measures):"
        for one in expected:
            most = "at most " if one.tokens_per_s is not None else ""
            yield f"  {one.model:<22} {most + _how_fast(one.rtf, one.tokens_per_s):<26} {one.needed_mb} MB"


def _part_lines(one: "Found") -> Iterator[str]:
    state = f"ok ({one.version})" if one.version else "missing" if one.is_missing else "not needed"
    yield f"{one.part.name:<11} {state:<30} {one.part.purpose}"
    if one.is_missing:
        known = [one.problem if one.problem != NOT_INSTALLED else None, one.install]
        yield f"            {': '.join(text for text in known if text)}"
    elif one.note:
        yield f"            {one.note}"


def _fit_lines(fit: "Fit") -> Iterator[str]:
    yield f"bundle      {'fits this machine' if fit.fits else 'cannot run here'}"
    memory = {"by its report": fit.predicted_mb, "measured here on something short": fit.measured_mb}
    if said := [f"{size} MB {how}" for how, size in memory.items() if size is not None]:
        yield f"            memory: {', '.join(said)}"
    if fit.load_s is not None:
        heard = "" if fit.audio_s is None else f" on {fit.audio_s:.0f} s of speech"
        fast = _how_fast(fit.rtf, fit.tokens_per_s)
        yield f"            {fast}{heard}, loads in {fit.load_s:.1f} s, measured here"
    yield from (f"            {line}" for line in (*fit.reasons, *fit.notes))


def _how_fast(rtf: float | None, tokens_per_s: float | None) -> str:
    if rtf is not None:
        return f"{1 / max(rtf, 1e-9):.1f} x real time"
    return f"{tokens_per_s or 0:.1f} tokens/s"


def _machine() -> dict[str, Any]:
    from sottovoce.cpu import this_cpu

    features, available = this_cpu().features, reported_bytes()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu_features": None if features is None else [name for name in SHOWN_FEATURES if name in features],
        "available_memory_mb": None if available is None else available // MEGABYTE,
    }
