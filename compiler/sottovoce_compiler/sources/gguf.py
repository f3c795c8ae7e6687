"""A GGUF file as a source: its weights dequantized, its config and tokenizer spelled as Hugging Face does.

Knows llama.cpp's conventions and undoes them: pairs of rows for its rotation, ones added to norms. The header is read
by the runtime's own reader, which believes nothing; tensors are read one at a time. What was lost when the file was
quantized is not brought back: the weights are taken as the file has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from sottovoce.errors import BundleError
from sottovoce.gguf import GgufFile, GgufTensor, read_gguf
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError
from sottovoce_compiler.sources.files import digests, spdx
from sottovoce_compiler.sources.gguf_config import (
    Architecture,
    Metadata,
    architecture_of,
    config_of,
    hf_name,
    is_factors,
)
from sottovoce_compiler.sources.gguf_tokenizer import adds_begin, tokenizer_file, vocabulary_of

SUFFIX = ".gguf"
# llama.cpp's numbers; 0 is none.
_POOLING: Mapping[int, Literal["mean", "cls", "last"]] = {1: "mean", 2: "cls", 3: "last"}

Float = NDArray[np.float32]


def is_layout(folder: Path) -> bool:
    """Whether `folder` holds exactly one GGUF file."""
    return folder.is_dir() and len(list(folder.glob(f"*{SUFFIX}"))) == 1


def open_layout(folder: Path) -> Checkpoint:
    """The checkpoint in the only GGUF file of `folder`."""
    (file,) = folder.glob(f"*{SUFFIX}")
    return open_gguf(file)


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in one GGUF file.

    A `SourceError` says what is damaged, or which architecture or tokenizer cannot be taken from GGUF.
    """
    try:
        opened = read_gguf(path)
    except BundleError as error:
        raise SourceError(str(error)) from None
    row, data = architecture_of(path.name, dict(opened.metadata))
    _check_whole(opened)
    tensors = GgufTensors.of(opened, row)
    factors = {name: tensors.stored(name) for name in opened.tensors if is_factors(name)}
    shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
    config = config_of(row, data, shapes, factors)
    tensors.check_heads(config)
    digest = digests([path])
    return Checkpoint(
        spec=str(path),
        name=path.stem,
        config=config,
        generation_config=_generation(data),
        tensors=tensors,
        vocabulary=vocabulary_of(data),
        tokenizer_file=tokenizer_file(data, digest[path.name]),
        licence=spdx(licence) if (licence := _text(data, "general.license")) else None,
        revision=None,
        sha256=digest,
        chat_template=_text(data, "tokenizer.chat_template"),
        tokenizer_config=_tokenizer_config(data),
        pooling=_POOLING.get(data.get("pooling_type", int, 0)),
    )


@dataclass(frozen=True)
class GgufTensors:
    """`Tensors` over one GGUF file, under Hugging Face's names and in its conventions."""

    file: GgufFile
    row: Architecture
    by_name: Mapping[str, str]  # Hugging Face's name -> GGUF's

    @classmethod
    def of(cls, file: GgufFile, row: Architecture) -> "GgufTensors":
        by_name = {}
        for name in file.tensors:
            try:
                known = hf_name(row, name)
            except KeyError:
                raise SourceError(f"{file.path}: tensor {name[:80]!r} has no place in {row.model_type}") from None
            if known is not None:
                by_name[known] = name
        return cls(file, row, by_name)

    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        return sorted(self.by_name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its data."""
        return self._tensor(name).shape

    def load(self, name: str) -> Array:
        """A fresh float32 array."""
        tensor = self._tensor(name)
        array = self.stored(tensor.name)
        if self.row.permuted and name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
            return _halves(array, self._heads(name))
        if self.row.norm_offset and name.endswith("norm.weight"):
            return array - np.float32(self.row.norm_offset)
        return array

    def stored(self, name: str) -> Float:
        """The tensor of that GGUF name in float32, as it lies in the file; a `SourceError` for an unknown type."""
        tensor = self.file.tensors[name]
        data = self.file.tensor_bytes(tensor)
        try:
            kind = GGMLQuantizationType[tensor.kind]
            if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
                values = data.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
            else:
                values = dequantize(data.reshape(*tensor.shape[:-1], -1), kind)
        except (NotImplementedError, KeyError, ValueError) as error:
            raise SourceError(f"{self.file.path}: {name} is stored as type {tensor.kind} ({error})") from None
        return values.reshape(tensor.shape).astype(np.float32)

    def check_heads(self, config: Mapping[str, Any]) -> None:
        """A `SourceError` where q and k do not divide into the heads that the metadata states."""
        for name in self.by_name:
            if not name.endswith(("q_proj.weight", "k_proj.weight")):
                continue
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            if self.shape(name)[0] != heads * config["head_dim"]:
                raise SourceError(
                    f"{self.file.path}: {name} has {self.shape(name)[0]} rows, expected {heads} heads of "
                    f"{config['head_dim']}"
                )

    def _heads(self, name: str) -> int:
        key = "attention.head_count" if ".q_proj." in name else "attention.head_count_kv"
        values = self.file.metadata
        architecture = values["general.architecture"]
        heads = values.get(f"{architecture}.{key}", values[f"{architecture}.attention.head_count"])
        assert isinstance(heads, int)  # `config_of` has read it
        return heads

    def _tensor(self, name: str) -> GgufTensor:
        if name not in self.by_name:
            raise SourceError(f"there is no tensor {name!r} in {self.file.path}; is this the model that was meant?")
        return self.file.tensors[self.by_name[name]]


def _halves(array: Float, heads: int) -> Float:
    """Rows of each head from pairs (0, n/2, 1, n/2 + 1, ...), as llama.cpp turns them, to halves (0, 1, ... n - 1)."""
    rows = array.reshape(heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(array.shape)


def _check_whole(file: GgufFile) -> None:
    count = file.metadata.get("split.count", 0)
    if isinstance(count, int) and count > 1:
        raise SourceError(f"{file.path} is one of {count} pieces; join them first (llama-gguf-split --merge)")
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise SourceError(f"{file.path} holds a {repr(kind)[:40]}, not a model")


def _generation(data: Metadata) -> dict[str, Any]:
    """The sampling that the file recommends, by Hugging Face's names."""
    keys = {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repetition_penalty",
    }
    found = {name: data.values.get(f"general.sampling.{key}") for key, name in keys.items()}
    return {
        name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _tokenizer_config(data: Metadata) -> dict[str, Any]:
    """Special tokens and prefixes as tokenizer_config.json spells them."""
    tokens: Sequence[str] = data.values.get("tokenizer.ggml.tokens", ())
    config: dict[str, Any] = {
        "add_bos_token": adds_begin(data),
        "add_eos_token": data.values.get("tokenizer.ggml.add_eos_token") is True,
    }
    for key in ("bos", "eos", "unknown", "padding"):
        index = data.values.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            config[{"unknown": "unk_token", "padding": "pad_token"}.get(key, f"{key}_token")] = tokens[index]
    return config


def _text(data: Metadata, key: str) -> str | None:
    value = data.values.get(key)
    if not isinstance(value, str) or not value:
        return None
    if any("\ud800" <= character <= "\udfff" for character in value):  # what is not UTF-8 was read as surrogates
        raise SourceError(f"{data.name}: {key} is not UTF-8; fetch the file again")
    return value
