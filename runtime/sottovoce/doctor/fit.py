"""Whether a bundle can run here, and how fast: what it says it needs, and what it does when it is tried.

Asks in the order of cost: the manifest (runtime, engine, processor), the memory that the bundle's report predicts or at
least its weights take, and then a short run in a process of its own. Knows nothing of how anything is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sottovoce.bench import BenchResult, measure
from sottovoce.errors import BundleError, SottovoceError
from sottovoce.memory import reported_bytes

if TYPE_CHECKING:
    from sottovoce.manifest import Manifest

MEGABYTE = 1_000_000
CACHE_VALUE = {"llama.cpp": 2, "onnxruntime": 4}  # bytes of each value of a cache
MAX_NUMBER = 1 << 20  # of layers, heads, values or tokens
MAX_NEEDED_MB = 1 << 24  # 16 TB: what a report may say is needed


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a bundle can run here; `reasons` say why not, `notes` what to know.

    Memory is that of the whole process, in MB (10^6 bytes): `predicted_mb` by its report, `measured_mb` when it was
    tried on something short. Speed as `BenchResult` has it. None where it was not said, or not tried.
    """

    fits: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    predicted_mb: int | None = None
    measured_mb: int | None = None
    load_s: float | None = None
    rtf: float | None = None
    audio_s: float | None = None
    tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Needs:
    """Bytes of memory by what they are for; of the whole process where they are `from_report`."""

    parts: dict[str, int]
    notes: tuple[str, ...]
    from_report: bool = False

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        return " and ".join(f"{size / MEGABYTE:.0f} MB {what}" for what, size in self.parts.items())


def check_fit(path: Path) -> Fit:
    """Whether this runtime, engine, processor and memory can run the bundle, or the GGUF file, at `path`; it is tried
    where nothing speaks against it."""
    from sottovoce.chat.loading import is_gguf

    try:
        needs = _gguf_needs(path) if is_gguf(path) else _bundle_needs(path)
    except SottovoceError as error:
        return Fit(False, (str(error),))
    available = reported_bytes()
    known = needs.total // MEGABYTE if needs.from_report else None
    if available is None:
        needs = _Needs(needs.parts, (*needs.notes, "this system does not say how much memory is free"))
    elif needs.total > available:
        reason = f"{path}: {needs}, and {available / MEGABYTE:.0f} MB of memory are free"
        return Fit(False, (reason,), needs.notes, known)
    try:
        result = measure(path, runs=1, brief=True)
    except SottovoceError as error:
        return Fit(False, (f"{path}: it was tried, and {error}",), needs.notes, known)
    return _tried(result, needs.notes, known)


def _tried(result: BenchResult, notes: tuple[str, ...], known: int | None) -> Fit:
    """The answer once it has run: it fits."""
    return Fit(
        fits=True,
        notes=notes,
        predicted_mb=known,
        measured_mb=None if result.process_mb is None else round(result.process_mb),
        load_s=result.load_s,
        rtf=result.rtf,
        audio_s=result.audio_s,
        tokens_per_s=result.tokens_per_s,
        prompt_tokens_per_s=result.prompt_tokens_per_s,
    )


def _bundle_needs(path: Path) -> _Needs:
    """Raises BundleError for what cannot run here."""
    from sottovoce.bundle import open_bundle

    bundle = open_bundle(path)
    notes = tuple(bundle.check_runtime())
    predicted = _predicted_bytes(bundle.report())
    if predicted is not None:
        return _Needs({"are needed, by its report": predicted}, notes, from_report=True)
    needs = {"of weights": bundle.size}
    if bundle.manifest.task == "chat":
        context, cache = _chat_cache(bundle.manifest)
        needs[f"of memory for {context} tokens"] = cache
    return _Needs(needs, notes)


def _predicted_bytes(report: Mapping[str, Any]) -> int | None:
    """What the report says the whole process takes at most; None where it says nothing that makes sense."""
    section = report.get("memory")
    value = section.get("with_imports_mb") if isinstance(section, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_NEEDED_MB:
        return None
    return round(value * MEGABYTE)


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


def _gguf_needs(path: Path) -> _Needs:
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
    return _Needs({"of weights": weights, f"of memory for {context} tokens": besides}, (NO_REPORT,))
