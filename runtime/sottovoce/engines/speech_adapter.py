"""A LoRA adapter for Whisper's graphs: two matrices for each of the places that the graphs have for them.

Knows the file (GGUF, written by `sottovoce adapter`) and believes nothing in it: a name that the graphs lack, a shape
that differs, a value that is no number are refused. Several adapters at once are one with the sum of their ranks. Does
not know for which base one was made (`sottovoce.adapter_pin`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import InputError
from sottovoce.gguf import GgufFile, GgufTensor
from sottovoce.manifest import printable

Float = NDArray[np.float32]

A, B = "lora_a", "lora_b"
ARCHITECTURE = "whisper"
MAX_RANK = 1 << 12
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


@dataclass(frozen=True, slots=True)
class Slot:
    """The size of one matrix W (rows, columns) that an adapter may change."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class SpeechAdapter:
    """`pairs` by the matrix's name: A^T (columns, rank) and B^T (rank, rows) float32; what they count beyond `scale` is
    in B."""

    pairs: Mapping[str, tuple[Float, Float]]
    scale: float


def slots_of(sessions: Sequence[Any]) -> dict[str, Slot]:
    """The places for adapters in onnxruntime's `sessions`, by the matrix's name."""
    inputs = {one.name: one.shape for session in sessions for one in session.get_inputs()}
    ends = {name.removesuffix(f".{A}"): shape[0] for name, shape in inputs.items() if name.endswith(f".{A}")}
    return {name: Slot(inputs[f"{name}.{B}"][1], columns) for name, columns in ends.items()}


def read_adapter(file: GgufFile, slots: Mapping[str, Slot], scale: float) -> SpeechAdapter:
    """The adapter in `file`. Raises InputError naming what does not fit here, BundleError for a damaged file."""
    kind = [file.metadata.get(key) for key in ("general.type", "adapter.type", "general.architecture")]
    if kind != ["adapter", "lora", ARCHITECTURE]:
        shown = ", ".join(printable(str(one), 40) for one in kind)
        raise InputError(f"{file.path} is no LoRA adapter for speech: it says {shown}")
    names = sorted({name.rpartition(".")[0] for name in file.tensors})
    pairs = {name: _pair(file, name, slots) for name in names}
    if not pairs:
        raise InputError(f"{file.path} has no tensors; make it anew with: sottovoce adapter")
    return SpeechAdapter(pairs, scale)


def feeds(adapters: Sequence[SpeechAdapter], slots: Mapping[str, Slot]) -> dict[str, Float]:
    """What the graphs' inputs are given: all adapters side by side; a matrix that none changes gets zeros of rank 1."""
    found: dict[str, Float] = {}
    for name, slot in slots.items():
        pairs = [(one.pairs[name], np.float32(one.scale)) for one in adapters if name in one.pairs]
        found[f"{name}.{A}"] = np.zeros((slot.columns, 1), np.float32)
        found[f"{name}.{B}"] = np.zeros((1, slot.rows), np.float32)
        if pairs:
            found[f"{name}.{A}"] = np.ascontiguousarray(np.concatenate([a for (a, _), _ in pairs], axis=1))
            found[f"{name}.{B}"] = np.concatenate([b * scale for (_, b), scale in pairs])
    return found


def _pair(file: GgufFile, name: str, slots: Mapping[str, Slot]) -> tuple[Float, Float]:
    shown = printable(name, 100)
    if (slot := slots.get(name)) is None:
        raise InputError(f"{file.path} changes {shown}, which this bundle has no place for; it is of another model")
    tensors = [file.tensors.get(f"{name}.{part}") for part in (A, B)]
    if None in tensors or any(t is not None and len(t.shape) != 2 for t in tensors):
        raise InputError(f"{file.path} does not have both matrices of {shown}; make it anew with: sottovoce adapter")
    a, b = (t for t in tensors if t is not None)
    rank = a.shape[0]
    if not 0 < rank <= MAX_RANK or a.shape != (rank, slot.columns) or b.shape != (slot.rows, rank):
        raise InputError(
            f"{file.path}: {shown} has A {a.shape} and B {b.shape}; here they are (rank, {slot.columns}) and "
            f"({slot.rows}, rank), of a rank up to {MAX_RANK}"
        )
    return np.ascontiguousarray(_values(file, a).T), np.ascontiguousarray(_values(file, b).T)


def _values(file: GgufFile, tensor: GgufTensor) -> Float:
    if tensor.kind not in _DTYPES:
        raise InputError(
            f"{file.path}: {printable(tensor.name, 100)} is {tensor.kind}; {' and '.join(_DTYPES)} are possible"
        )
    stored = np.frombuffer(file.tensor_bytes(tensor), _DTYPES[tensor.kind])
    values: Float = stored.reshape(tensor.shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{file.path}: {printable(tensor.name, 100)} does not hold finite numbers; train it again")
    return values
