"""A LoRA adapter for Whisper as a file that a bundle's graphs take while they run.

Knows which matrices the lowering multiplies in one piece (`slots`), and puts the pairs of a piece together. The file is
GGUF, as a chat's adapter is: tensors `NAME.lora_a` (rank, columns) and `NAME.lora_b` (rows, rank) float32 or float16
with all scales in `lora_b`, and the base's weights named by their SHA-256, for the runtime to refuse another model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sottovoce_compiler.adapter import placed
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.lowerings.gguf.adapter import adapter_writer, finished, stored_as
from sottovoce_compiler.lowerings.onnx.linear import Float
from sottovoce_compiler.lowerings.onnx.slots import A, B
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.sources.peft import LoraAdapter, LoraPair

ARCHITECTURE = "whisper"


@dataclass(frozen=True, slots=True)
class Slot:
    """A matrix as the graphs multiply it: `parts` are the tensors of the checkpoint whose rows it has, in order."""

    name: str
    parts: tuple[str, ...]
    rows: int  # of each part
    columns: int


def slots(spec: WhisperSpec) -> Iterator[Slot]:
    """Every matrix of `WhisperLowering` that has room for an adapter."""
    width = spec.width
    sides = {"encoder": (spec.encoder_layers, spec.encoder_ffn), "decoder": (spec.decoder_layers, spec.decoder_ffn)}
    for side, (layers, ffn) in sides.items():
        for index in range(layers):
            layer = f"{side}.layers.{index}"
            attention = f"{layer}.self_attn"
            yield Slot(f"{attention}.qkv", tuple(f"model.{attention}.{one}_proj.weight" for one in "qkv"), width, width)
            yield _single(f"{attention}.out_proj", width, width)
            if side == "decoder":
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield _single(f"{layer}.encoder_attn.{part}", width, width)
            yield _single(f"{layer}.fc1", ffn, width)
            yield _single(f"{layer}.fc2", width, ffn)


def write_speech_adapter(checkpoint: Checkpoint, adapter: LoraAdapter, path: Path, precision: str = "fp32") -> None:
    """Write `adapter` for `checkpoint` to `path`, whole or not at all; the same gives the same bytes.

    Raises SourceError for an adapter of another model, or where float16 cannot hold it.
    """
    pairs = placed(adapter, checkpoint)
    writer = adapter_writer(ARCHITECTURE, checkpoint, adapter, alpha=0.0, precision=precision)
    for slot in slots(whisper_spec(checkpoint)):
        if (found := _assembled(slot, pairs)) is not None:
            for part, values in zip((A, B), found, strict=True):
                name = f"{slot.name}.{part}"
                writer.add_tensor(name, stored_as(values, precision, f"{adapter.folder}: {name}"))
    finished(writer, path)


def _single(name: str, rows: int, columns: int) -> Slot:
    return Slot(name, (f"model.{name}.weight",), rows, columns)


def _assembled(slot: Slot, pairs: Mapping[str, LoraPair]) -> tuple[Float, Float] | None:
    """A (rank, columns) and B (rows, rank) of a slot: the parts' own one below the other, each on its own rows."""
    present = [(index, pairs[part]) for index, part in enumerate(slot.parts) if part in pairs]
    if not present:
        return None
    rank = sum(pair.rank for _, pair in present)
    a = np.empty((rank, slot.columns), np.float32)
    b = np.zeros((slot.rows * len(slot.parts), rank), np.float32)
    first = 0
    for index, pair in present:
        part_a, part_b = pair.load()
        ranks, rows = slice(first, first + pair.rank), slice(index * slot.rows, (index + 1) * slot.rows)
        a[ranks] = part_a
        b[rows, ranks] = part_b * np.float32(pair.scale)
        first += pair.rank
    return a, b
