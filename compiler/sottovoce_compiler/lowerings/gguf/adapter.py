"""A LoRA adapter as a GGUF file that llama.cpp adds to a model while it runs.

Knows llama.cpp's conventions: A and B of a matrix under the matrix's name, B's rows in the order of the matrix's, and
one alpha for the file, by which a pair counts alpha / rank times. Names the base's weights by their SHA-256, for the
runtime to refuse another model.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from gguf import GGUFType, GGUFWriter, Keys, LlamaFileType
from numpy.typing import NDArray

from sottovoce.adapter_pin import PIN, is_weight_file
from sottovoce_compiler.adapter import MATRICES, placed
from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Float
from sottovoce_compiler.lowerings.gguf.model import graph_of, in_row_order, tensor_name
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.sources.peft import LoraAdapter, LoraPair
from sottovoce_compiler.staging import workspace

_HEAD = "output.weight"
_KINDS: Mapping[str, tuple[np.dtype[np.floating], LlamaFileType]] = {
    "fp32": (np.dtype(np.float32), LlamaFileType.ALL_F32),
    "fp16": (np.dtype(np.float16), LlamaFileType.MOSTLY_F16),
}


def write_adapter(
    model: CausalModel, checkpoint: Checkpoint, adapter: LoraAdapter, path: Path, precision: str = "fp32"
) -> None:
    """Write `adapter` for `model` of `checkpoint` to `path`, whole or not at all; the same gives the same bytes.

    Raises SourceError for an adapter of another model or of DoRA's kind, or where float16 cannot hold it.
    """
    pairs = placed(adapter, checkpoint)
    graph = graph_of(model.spec, checkpoint.name)
    first = next(iter(pairs.values()))
    alpha = first.scale * first.rank
    writer = adapter_writer(graph.architecture, checkpoint, adapter, alpha, precision)
    for name, values in _tensors(model, pairs, alpha):
        writer.add_tensor(name, stored_as(values, precision, f"{adapter.folder}: {name}"))
    finished(writer, path)


def adapter_writer(
    architecture: str, checkpoint: Checkpoint, adapter: LoraAdapter, alpha: float, precision: str
) -> GGUFWriter:
    """A file that says what it is and which weights it is for, to add tensors to (`stored_as`) and end with `finished`.

    Raises SourceError where the checkpoint names no file of weights, and for DoRA: it scales the rows of its base.
    """
    if adapter.dora:
        raise SourceError(
            f"{adapter.folder} is a DoRA adapter, which no engine adds while it runs; "
            "compile it into its base: sottovoce compile SOURCE --adapter DIR"
        )
    writer = GGUFWriter(None, architecture)
    _add_facts(writer, checkpoint, adapter, alpha, _KINDS[precision][1])
    return writer


def stored_as(values: Float, precision: str, what: str) -> NDArray[np.floating]:
    """The values as the file holds them. Raises SourceError naming `what` where float16 has no such numbers."""
    with np.errstate(over="ignore"):
        stored = values.astype(_KINDS[precision][0])
    if not np.isfinite(stored).all():
        raise SourceError(f"{what} has values beyond float16; write it as fp32")
    return stored


def finished(writer: GGUFWriter, path: Path) -> None:
    """Write the file to `path`, whole or not at all."""
    with workspace(path) as folder:
        whole = folder / "adapter.gguf"
        writer.write_header_to_file(whole)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(whole, path)


def base_digests(checkpoint: Checkpoint) -> list[str]:
    """The SHA-256 of the files that hold the weights, in hex, sorted."""
    found = sorted(digest for name, digest in checkpoint.sha256.items() if is_weight_file(name))
    if not found:
        raise SourceError(f"{checkpoint.name} names no file of weights, so that no adapter can be pinned to it")
    return found


def _add_facts(
    writer: GGUFWriter, checkpoint: Checkpoint, adapter: LoraAdapter, alpha: float, file_type: LlamaFileType
) -> None:
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(adapter.name)
    if adapter.licence:
        writer.add_license(adapter.licence)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, checkpoint.name)
    if checkpoint.licence:
        writer.add_string("sottovoce.base.license", checkpoint.licence)
    writer.add_array(PIN, base_digests(checkpoint))
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)


def _tensors(model: CausalModel, pairs: Mapping[str, LoraPair], alpha: float) -> Iterator[tuple[str, Float]]:
    """A (rank, columns) and B (rows, rank) of each changed matrix, in the order of the model's."""
    for stored, name, role in _places(model):
        if (pair := pairs.get(stored)) is None:
            continue
        a, b = pair.load()
        # What a pair counts beyond the file's alpha is in its B: ranks and alphas may differ between matrices.
        share = np.float32(pair.scale * pair.rank / alpha)
        yield f"{name}.lora_a", a
        yield f"{name}.lora_b", in_row_order(model.spec, role, b if share == 1 else b * share)


def _places(model: CausalModel) -> Iterator[tuple[str, str, str]]:
    """Of every matrix: the checkpoint's name, llama.cpp's, and its role; fused ones once."""
    spec: CausalSpec = model.spec
    seen = set[str]()
    for layer in range(spec.layers):
        for role in MATRICES:
            stored, name = model.names(role, layer), tensor_name(spec, role, layer)
            if stored not in seen:
                yield stored, name, role
            seen.add(stored)
    if not spec.tied:
        yield model.names("head", None), _HEAD, "head"
