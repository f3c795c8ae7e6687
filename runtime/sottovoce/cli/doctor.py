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
from typing import TYPE_CHECKING, Any

from sottovoce import __version__
from sottovoce.cli import DONE, FAILED
from sottovoce.errors import BundleError, InputError, MissingExtraError, SottovoceError
from sottovoce.memory import reported_bytes

if TYPE_CHECKING:
    from sottovoce.manifest import Manifest

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
CACHE_VALUE = {"llama.cpp": 2, "onnxruntime": 4}  # bytes of each value of a cache
MAX_NUMBER = 1 << 20  # of layers, heads, values or tokens


@dataclass(frozen=True)
class Part:
    """Something that is installed separately: `package`, and the packages `beside` it. It is not missing where another
    part does `instead`."""

    name: str
    purpose: str
    package: str
    install: str
    beside: tuple[str, ...] = ()
    instead: str | None = None


LLAMA_CPP = Part("llama.cpp", "runs chat bundles and .gguf files", "xllamacpp", "pip install 'sottovoce[chat-wheel]'")
ENGINES = (
    Part("onnxruntime", "runs speech bundles, and chat bundles made for it", "onnxruntime", "pip install onnxruntime"),
    LLAMA_CPP,
)
_FORMS = ("jinja2", "llguidance")  # prompts by the model's template; JSON by a schema, and tool calls
EXTRAS = (
    Part("audio", "recordings other than WAV", "soundfile", "pip install 'sottovoce[audio]'"),
    Part("mic", "the microphone, for listen", "sounddevice", "pip install 'sottovoce[mic]'"),
    Part(
        "chat-wheel",
        "chat with llama.cpp, ready made",
        "xllamacpp",
        "pip install 'sottovoce[chat-wheel]'",
        _FORMS,
        instead="chat",
    ),
    Part(
        "chat",
        "chat with llama.cpp, built here from source",
        "llama-cpp-python",
        "pip install 'sottovoce[chat]'",
        _FORMS,
        instead="chat-wheel",
    ),
    Part("chat-onnx", "chat with onnxruntime", "tokenizers", "pip install 'sottovoce[chat-onnx]'", _FORMS),
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
    parser.add_argument(
        "bundle", metavar="BUNDLE", type=Path, nargs="?", help="a bundle, or a .gguf file, that should run"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when a bundle is given and cannot run here."""
    if args.bundle is not None and not args.bundle.exists():
        raise InputError(f"{args.bundle}: no such bundle")
    fit = None if args.bundle is None else check_fit(args.bundle)
    print(json.dumps(_as_json(fit), ensure_ascii=False) if args.json else "\n".join(_as_text(fit)))
    return FAILED if fit and not fit.fits else DONE


def check_fit(path: Path) -> Fit:
    """Whether this runtime, engine, processor and memory can run the bundle, or the GGUF file, at `path`."""
    from sottovoce.chat.loading import is_gguf

    try:
        needs, notes = _gguf_needs(path) if is_gguf(path) else _bundle_needs(path)
    except SottovoceError as error:
        return Fit(False, (str(error),), ())
    available = reported_bytes()
    if available is None:
        return Fit(True, (), (*notes, "this system does not say how much memory is free"))
    if sum(needs.values()) > available:
        parts = " and ".join(f"{size / MEGABYTE:.0f} MB of {what}" for what, size in needs.items())
        return Fit(False, (f"{path}: {parts}, and {available / MEGABYTE:.0f} MB of memory are free",), notes)
    return Fit(True, (), notes)


def _bundle_needs(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Bytes of memory by what they are for, and what to know. Raises BundleError for what cannot run here."""
    from sottovoce.bundle import open_bundle

    bundle = open_bundle(path)
    notes = tuple(bundle.check_runtime())
    needs = {"weights": bundle.size}
    if bundle.manifest.task == "chat":
        context, cache = _chat_cache(bundle.manifest)
        needs[f"memory for {context} tokens"] = cache
    return needs, notes


def _chat_cache(manifest: "Manifest") -> tuple[int, int]:
    """Tokens of the context, and bytes of their keys and values. Raises BundleError for what is no number."""
    numbers = []
    for key in ("layers", "kv_heads", "head_width", "context"):
        value = manifest.model.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_NUMBER:
            raise BundleError(f"the manifest has {key} = {value!r:.50}; 1 to {MAX_NUMBER} is possible")
        numbers.append(value)
    layers, heads, width, context = numbers
    return context, 2 * layers * heads * width * context * CACHE_VALUE.get(manifest.engine.name, 4)


def _gguf_needs(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    from sottovoce.chat.loading import NO_REPORT
    from sottovoce.engines.llama_cpp.checks import check_model
    from sottovoce.engines.llama_cpp.engine import BATCH, OUTPUTS, USUAL_CONTEXT
    from sottovoce.engines.llama_cpp.library import find_binding
    from sottovoce.engines.llama_cpp.memory import Room, needed_bytes
    from sottovoce.gguf import read_gguf

    find_binding()
    header = read_gguf(path)
    facts = check_model(header)
    weights = sum(tensor.bytes for tensor in header.tensors.values())
    context = min(facts.context, USUAL_CONTEXT)
    room = Room(context, min(BATCH, context), min(OUTPUTS, context))
    besides = needed_bytes(weights, facts, room) - weights
    return {"weights": weights, f"memory for {context} tokens": besides}, (NO_REPORT,)


def _as_json(fit: Fit | None) -> dict[str, Any]:
    missing = [part for part in (*ENGINES, *EXTRAS) if _is_missing(part)]
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
        state = f"ok ({found})" if found else f"missing: {part.install}" if _is_missing(part) else "not needed"
        yield f"{part.name:<11} {state:<28} {part.purpose}"
    if fit is not None:
        yield f"bundle      {'fits this machine' if fit.fits else 'cannot run here'}"
        yield from (f"            {line}" for line in (*fit.reasons, *fit.notes))


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


def _is_missing(part: Part) -> bool:
    return not _version(part) and not any(_version(other) for other in EXTRAS if other.name == part.instead)


def _version(part: Part) -> str | None:
    """Of the part's package, None unless all that belongs to it is installed."""
    if part is LLAMA_CPP:
        return _llama_version()
    try:
        found, *_ = [version(package) for package in (part.package, *part.beside)]
        return found
    except PackageNotFoundError:
        return None


def _llama_version() -> str | None:
    """Of the binding that brings llama.cpp, with its name."""
    from sottovoce.engines.llama_cpp.library import find_binding

    try:
        binding = find_binding()
    except (MissingExtraError, InputError):
        return None
    return f"{binding.name} {binding.version}"
