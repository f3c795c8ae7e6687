"""Writes whisper.cpp's own file format (the ggml format that precedes GGUF) from a Whisper state dict.

Knows the layout of the file, whisper.cpp's names for the tensors, and which of them its quantizer converts.
Does not know where weights come from, and does not run anything. All numbers are little-endian:

    magic "ggml" as u32; eleven i32 of sizes, the last one the file type
    mel filters: rows i32, columns i32, float32 data
    vocabulary: count i32, then length u32 and bytes for each token
    tensors until the end: rank, name length, type and rank times a size (fastest first) as i32, name, data
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Precision = Literal["f16", "q8_0"]  # of a file; whisper.cpp 1.8 aborts on convolutions in float32
Storage = Literal["f32", "f16", "q8_0"]  # of a tensor

MAGIC = 0x67676D6C
BLOCK = 32  # values that share one scale in q8_0
QUANTIZATION_VERSION = 2  # of ggml's block formats; the file type carries it in its thousands
FILE_TYPE: Mapping[Precision, int] = {"f16": 1, "q8_0": 7 + 1000 * QUANTIZATION_VERSION}
TENSOR_TYPE: Mapping[Storage, int] = {"f32": 0, "f16": 1, "q8_0": 8}

ALWAYS_FLOAT32 = frozenset(
    {
        "encoder.conv1.bias",
        "encoder.conv2.bias",
        "encoder.positional_embedding",
        "decoder.positional_embedding",
    }
)
"""Tensors of rank 2 that the engine wants in float32 and its quantizer leaves alone."""

_OUTER = {
    "embed_positions.weight": "positional_embedding",
    "embed_tokens.weight": "token_embedding.weight",
}
_IN_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_PROJECTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_FINAL_NORM = {"encoder": "ln_post", "decoder": "ln"}


class Tensors(Protocol):
    """Weights by Hugging Face name, loaded one at a time."""

    def names(self) -> Sequence[str]:
        """Every name."""

    def load(self, name: str) -> NDArray[Any]:
        """The array of that name, floats of any width."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The model's dimensions, in the order in which the file's header holds them."""

    vocabulary: int
    audio_positions: int
    audio_width: int
    audio_heads: int
    audio_layers: int
    text_positions: int
    text_width: int
    text_heads: int
    text_layers: int
    mels: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Sizes":
        """From a Hugging Face Whisper `config.json`."""
        return cls(
            config["vocab_size"],
            config["max_source_positions"],
            config["d_model"],
            config["encoder_attention_heads"],
            config["encoder_layers"],
            config["max_target_positions"],
            config["d_model"],
            config["decoder_attention_heads"],
            config["decoder_layers"],
            config["num_mel_bins"],
        )

    def values(self) -> tuple[int, ...]:
        """The ten numbers in file order."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def ggml_name(name: str) -> str | None:
    """whisper.cpp's name of a Hugging Face tensor; None for the output head, which is tied to the embedding.

    ValueError for a name that a Whisper model does not have.
    """
    if name == "proj_out.weight":
        return None
    side, _, rest = name.removeprefix("model.").partition(".")
    if side in _FINAL_NORM and rest:
        if rest in _OUTER:
            return f"{side}.{_OUTER[rest]}"
        if rest.startswith("layer_norm."):
            return f"{side}.{_FINAL_NORM[side]}.{rest.removeprefix('layer_norm.')}"
        if rest.startswith(("conv1.", "conv2.")):
            return f"{side}.{rest}"
        if rest.startswith("layers."):
            _, index, module, last = rest.split(".", 3)
            return f"{side}.blocks.{index}.{_layer_name(module, last)}"
    raise ValueError(f"{name!r} is not a tensor of a Whisper model")


def _layer_name(module: str, last: str) -> str:
    """Name below one layer: `self_attn`, `k_proj.weight` is `attn.key.weight`."""
    if module in _IN_LAYER:
        return f"{_IN_LAYER[module]}.{last}"
    if module not in ("self_attn", "encoder_attn"):
        raise ValueError(f"{module!r} is not a part of a Whisper layer")
    projection, _, kind = last.partition(".")
    attention = "attn" if module == "self_attn" else "cross_attn"
    return f"{attention}.{_PROJECTION[projection]}.{kind}"


def quantize_q8_0(values: NDArray[np.float32]) -> bytes:
    """Blocks of 32 along the last axis, each a float16 scale (largest magnitude / 127) and 32 int8.

    Rounds halves away from zero, as C's roundf does. ValueError when the last axis is not a multiple of 32.
    """
    if values.shape[-1] % BLOCK:
        raise ValueError(f"rows of {values.shape[-1]} values cannot be cut in q8_0 blocks of {BLOCK}")
    blocks = values.reshape(-1, BLOCK).astype(np.float32)
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    scaled = blocks * inverse[:, None]
    packed = np.empty(len(blocks), dtype=[("scale", "<f2"), ("values", "i1", BLOCK)])
    packed["scale"] = scale
    packed["values"] = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)
    return packed.tobytes()


def dequantize_q8_0(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Inverse of `quantize_q8_0`: float32 of `shape`."""
    packed = np.frombuffer(data, dtype=[("scale", "<f2"), ("values", "i1", BLOCK)])
    restored = packed["scale"].astype(np.float32)[:, None] * packed["values"].astype(np.float32)
    return restored.reshape(shape)


def storage_of(name: str, rank: int, precision: Precision) -> Storage:
    """How a file of `precision` stores a tensor: vectors in float32, kernels of rank 3 in float16."""
    if rank < 2 or name in ALWAYS_FLOAT32:
        return "f32"
    if precision == "q8_0" and rank != 2:
        return "f16"
    return precision


def write_ggml(
    path: Path,
    sizes: Sizes,
    mel_filters: NDArray[np.float32],
    vocabulary: Sequence[bytes],
    tensors: Tensors,
    precision: Precision,
) -> None:
    """Write a model file that whisper.cpp loads.

    mel_filters: float32 (mels, 201), one row a band. vocabulary: bytes of the ordinary tokens from id 0 on;
    the engine names the special ones itself. ValueError for a tensor that is not Whisper's.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", MAGIC, *sizes.values(), FILE_TYPE[precision]))
        file.write(struct.pack("<2i", *mel_filters.shape))
        file.write(np.ascontiguousarray(mel_filters, dtype="<f4").tobytes())
        file.write(struct.pack("<i", len(vocabulary)))
        for token in vocabulary:
            file.write(struct.pack("<I", len(token)) + token)
        for name in tensors.names():
            theirs = ggml_name(name)
            if theirs is not None:
                _write_tensor(file, theirs, tensors.load(name), precision)


def _write_tensor(file: IO[bytes], name: str, array: NDArray[Any], precision: Precision) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        array = array.reshape(-1, 1)  # the engine adds it to (channels, frames)
    stored = storage_of(name, array.ndim, precision)
    encoded = name.encode()
    file.write(struct.pack("<3i", array.ndim, len(encoded), TENSOR_TYPE[stored]))
    file.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)))
    file.write(encoded)
    if stored == "q8_0":
        file.write(quantize_q8_0(array.astype(np.float32)))
    else:
        file.write(np.ascontiguousarray(array, dtype="<f4" if stored == "f32" else "<f2").tobytes())


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a file holds it: its storage, its shape with the slowest axis first, and its bytes."""

    name: str
    storage: Storage
    shape: tuple[int, ...]
    data: bytes

    def values(self) -> NDArray[np.float32]:
        """The float32 array that the engine computes with."""
        if self.storage == "q8_0":
            return dequantize_q8_0(self.data, self.shape)
        kind = "<f4" if self.storage == "f32" else "<f2"
        return np.frombuffer(self.data, dtype=kind).reshape(self.shape).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a file written by `write_ggml` holds."""

    sizes: Sizes
    file_type: int
    mel_filters: NDArray[np.float32]
    vocabulary: tuple[bytes, ...]
    tensors: tuple[StoredTensor, ...]


def read_ggml(path: Path) -> Contents:
    """Read a whole file back. ValueError when it does not begin with ggml's magic or is cut short."""
    with path.open("rb") as file:
        magic, *header = _unpack(file, "<I11i")
        if magic != MAGIC:
            raise ValueError(f"{path} begins with {magic:#x}, a ggml file with {MAGIC:#x}")
        rows, columns = _unpack(file, "<2i")
        filters = np.frombuffer(file.read(rows * columns * 4), dtype="<f4").reshape(rows, columns)
        (count,) = _unpack(file, "<i")
        words = tuple(file.read(_unpack(file, "<I")[0]) for _ in range(count))
        return Contents(Sizes(*header[:10]), header[10], filters, words, tuple(_read_tensors(file)))


def _read_tensors(file: IO[bytes]) -> Iterator[StoredTensor]:
    by_type = {number: storage for storage, number in TENSOR_TYPE.items()}
    bytes_per_block = {"f32": 4 * BLOCK, "f16": 2 * BLOCK, "q8_0": 2 + BLOCK}
    while header := file.read(12):
        rank, length, kind = struct.unpack("<3i", header)
        shape = tuple(reversed(_unpack(file, f"<{rank}i")))
        name = file.read(length).decode()
        storage = by_type[kind]
        size = int(np.prod(shape)) * bytes_per_block[storage] // BLOCK
        data = file.read(size)
        if len(data) != size:
            raise ValueError(f"the ggml file ends {len(data)} bytes into {name}, which has {size}")
        yield StoredTensor(name, storage, shape, data)


def _unpack(file: IO[bytes], layout: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(layout))
    if len(data) != struct.calcsize(layout):
        raise ValueError(f"the ggml file ends {len(data)} bytes into a field of {struct.calcsize(layout)}")
    return struct.unpack(layout, data)
