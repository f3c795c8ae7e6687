"""Writes one GGUF file: tensors pass through memory one at a time, the file appears whole or not at all.

The header needs every tensor's type, which only its quantization decides: data is spooled beside the file first. The
same inputs and versions give the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.lowerings.gguf.metadata import add_general, add_sizes
from sottovoce_compiler.lowerings.gguf.model import gguf_tensors, graph_of
from sottovoce_compiler.lowerings.gguf.vocabulary import TokenTable, add_tokens, token_table
from sottovoce_compiler.sources.checkpoint import Checkpoint

# A tensor's name and float32 values -> its bytes as stored (any dtype and shape) and their type.
Quantize = Callable[[str, Float], tuple[NDArray[Any], GGMLQuantizationType]]
ALL_F32 = 0  # llama.cpp's number for a file of float32


def keep_float32(name: str, array: Float) -> tuple[NDArray[Any], GGMLQuantizationType]:
    """The `Quantize` that does not."""
    return array, GGMLQuantizationType.F32


@dataclass(frozen=True, slots=True)
class _Spooled:
    name: str
    shape: tuple[int, ...]  # of the values, not of the bytes
    kind: GGMLQuantizationType
    size: int


def write_gguf(
    model: CausalModel,
    checkpoint: Checkpoint,
    path: Path,
    quantize: Quantize = keep_float32,
    file_type: int = ALL_F32,
) -> tuple[str, ...]:
    """Write `model` with the tokens and the template of its checkpoint; what a user should know of differences.

    `quantize` is asked for every tensor in the order of the file; `file_type` is what `general.file_type` says. Raises
    UnsupportedModelError for what llama.cpp would compute or tokenize otherwise, SourceError for what cannot be read.
    """
    graph = graph_of(model.spec, checkpoint.name)
    tokens = token_table(checkpoint, model.spec.vocab_size)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        spool = Path(folder) / "tensors"
        with spool.open("wb") as file:
            spooled = [_spool(file, name, array, quantize) for name, array in gguf_tensors(model)]
        writer = GGUFWriter(None, graph.architecture)
        add_general(writer, checkpoint, file_type, tokens.strips_after_special)
        add_sizes(writer, model.spec, graph)
        add_tokens(writer, tokens, checkpoint)
        whole = Path(folder) / "whole.gguf"
        _write(writer, spooled, spool, whole)
        whole.replace(path)
    return (*graph.notes, *tokens.notes)


def write_vocabulary(checkpoint: Checkpoint, path: Path, vocab_size: int) -> TokenTable:
    """A GGUF file of tokens alone, which llama.cpp opens with `vocab_only`; the table that was written."""
    tokens = token_table(checkpoint, vocab_size)
    writer = GGUFWriter(None, "llama")
    add_general(writer, checkpoint, ALL_F32, tokens.strips_after_special)
    add_tokens(writer, tokens, checkpoint)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        whole = Path(folder) / "whole.gguf"
        _write(writer, [], None, whole)
        whole.replace(path)
    return tokens


def _spool(file: BinaryIO, name: str, array: Float, quantize: Quantize) -> _Spooled:
    data, kind = quantize(name, array)
    values, size = GGML_QUANT_SIZES[kind]
    if array.shape[-1] % values or data.nbytes != prod(array.shape) // values * size:
        raise ValueError(f"{name}: {data.nbytes} bytes of {kind.name} are not {array.shape} values")
    file.write(np.ascontiguousarray(data).tobytes())
    return _Spooled(name, array.shape, kind, data.nbytes)


def _write(writer: GGUFWriter, spooled: list[_Spooled], spool: Path | None, path: Path) -> None:
    for one in spooled:
        writer.add_tensor_info(one.name, one.shape, np.dtype(np.float32), one.size, raw_dtype=one.kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if spool is not None:
        with spool.open("rb") as file:
            for one in spooled:
                writer.write_tensor_data(np.frombuffer(file.read(one.size), np.uint8))
    writer.close()
