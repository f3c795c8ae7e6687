"""GGUF files of tiny random models, and the same files with a key or a tensor changed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

from sottovoce.gguf import read_gguf
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.writer import write_gguf, write_vocabulary
from sottovoce_compiler.sources import Checkpoint, resolve

from ..causal_case import MODELS, config_of, random_model, save
from ..lowerings.gguf.tokenizer_case import checkpoint_of

# Llama 3's own parameters, which a GGUF file does not hold; causal_case has smaller ones.
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}
NAMES = [name for name in MODELS if name != "mistral"]  # mistral is llama in GGUF


def written(name: str, folder: Path, chat_template: str | None = None) -> tuple[Any, Checkpoint, Path]:
    """A random model, its checkpoint in Hugging Face's layout, and its GGUF file in float32."""
    config = config_of(name)
    if name == "llama 3":
        config.rope_parameters = LLAMA3
    model = random_model(config)
    checkpoint = replace(resolve(str(save(model, folder / "source"))), chat_template=chat_template)
    write_gguf(language_model(checkpoint), checkpoint, folder / "model.gguf")
    return model, checkpoint, folder / "model.gguf"


def vocabulary_file(tokenizer: Any, folder: Path, **fields: Any) -> tuple[Checkpoint, Path]:
    """A tokenizer alone as a GGUF file without tensors."""
    checkpoint = checkpoint_of(tokenizer, folder, **fields)
    write_vocabulary(checkpoint, folder / "vocabulary.gguf", checkpoint.config["vocab_size"])
    return checkpoint, folder / "vocabulary.gguf"


def rewrite(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any] | None] | None = None,
) -> Path:
    """The file again with some metadata and tensors changed, added, or (None) left out."""
    opened = read_gguf(path)
    values = {**opened.metadata, **(changes or {})}
    arrays: dict[str, Any] = {
        name: np.array(opened.tensor_bytes(tensor)).view(np.float32).reshape(tensor.shape)
        for name, tensor in opened.tensors.items()
    }
    arrays |= tensors or {}
    writer = GGUFWriter(None, str(values.pop("general.architecture")))
    for key, value in values.items():
        _add(writer, key, value)
    for name, array in arrays.items():
        if array is not None:
            writer.add_tensor(name, np.ascontiguousarray(array))
    target = path.with_name("changed.gguf")
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def rewrite_as(path: Path, kind: GGMLQuantizationType) -> Path:
    """The file with every matrix of layers stored as `kind`."""
    from gguf import quantize

    opened = read_gguf(path)
    writer = GGUFWriter(None, str(opened.metadata["general.architecture"]))
    for key, value in opened.metadata.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for name, tensor in opened.tensors.items():
        array = np.array(opened.tensor_bytes(tensor)).view(np.float32).reshape(tensor.shape)
        if array.ndim == 2 and array.shape[-1] % 32 == 0:
            writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    target = path.with_name("stored.gguf")
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, np.ndarray):
        writer.add_array(key, value.tolist())
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_key_value(key, value, GGUFValueType.UINT32 if 0 <= value < 2**32 else GGUFValueType.INT64)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, bytes):
        writer.add_key_value(key, value, GGUFValueType.STRING)  # bytes that are not UTF-8
    else:
        writer.add_string(key, value)
