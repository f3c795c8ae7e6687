"""A folder in Hugging Face's layout: config.json, weights as safetensors or PyTorch files, tokenizer files.

Knows file names and how to read one tensor at a time. Does not know what the tensors mean: whether the
architecture can be compiled is for the families to say. PyTorch files are pickles and are only read with
`weights_only=True`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sottovoce_compiler.sources import vocabulary
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError
from sottovoce_compiler.sources.files import (
    digests,
    file_beside,
    licence_in_readme,
    read_json_object,
    read_text,
    sha256_of,
)

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
SAFETENSORS = "model.safetensors"
PYTORCH = "pytorch_model.bin"
# In the order of preference: one file before shards, safetensors before pickles.
WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PYTORCH, f"{PYTORCH}.index.json")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json")
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"
CHAT_FILES = (TOKENIZER_CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE)
POOLING = "1_Pooling/config.json"
SMALL_FILES = (CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES, *CHAT_FILES, POOLING)
# In sentence-transformers' words; its other ways of pooling are not read.
_POOLINGS: Mapping[str, Literal["mean", "cls", "last"]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def is_layout(folder: Path) -> bool:
    """Whether `folder` has a config.json and weights under one of the names in `WEIGHTS`."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS)


def open_layout(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; weights stay on disk until loaded."""
    config = read_json_object(folder / CONFIG)
    tensors, weight_files = open_weights(folder)
    tokenizer = folder / "tokenizer.json"
    small = [folder / name for name in SMALL_FILES if (folder / name).is_file()]
    tokenizer_config = _optional(folder / TOKENIZER_CONFIG)
    return Checkpoint(
        spec=str(folder),
        name=folder.resolve().name,
        config=config,
        generation_config=_optional(folder / GENERATION_CONFIG),
        tensors=tensors,
        vocabulary=_vocabulary(folder, config),
        tokenizer_file=tokenizer if tokenizer.is_file() else None,
        licence=licence_in_readme(folder),
        revision=None,
        sha256=_digests(folder, [*small, *weight_files]),
        tokenizer_config=tokenizer_config,
        special_tokens_map=_optional(folder / SPECIAL_TOKENS),
        chat_template=_chat_template(folder, tokenizer_config),
        pooling=_pooling(folder),
    )


def open_weights(folder: Path) -> tuple["FileTensors", list[Path]]:
    """The tensors of the first of `WEIGHTS` that `folder` has, and the files they are read from."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise SourceError(f"no weights in {folder}; looked for {', '.join(WEIGHTS)}")
    opener = _open_safetensors if found.name.startswith(SAFETENSORS) else _open_pytorch
    if found.suffix != ".json":
        return FileTensors(opener(found)), [found]
    tensors = _open_shards(found, opener)
    return tensors, [found, *sorted({entry.file for entry in tensors.entries.values()})]


@dataclass(frozen=True)
class Entry:
    """One tensor: the file that holds it, its shape, and how to read it."""

    file: Path
    shape: tuple[int, ...]
    read: Callable[[], Array]


@dataclass(frozen=True)
class FileTensors:
    """`Tensors` over files; holds shapes and no data."""

    entries: Mapping[str, Entry]

    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        return sorted(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its data."""
        return self._entry(name).shape

    def load(self, name: str) -> Array:
        """A fresh array in the stored dtype (bfloat16 as float32)."""
        return self._entry(name).read()

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            files = ", ".join(sorted({entry.file.name for entry in self.entries.values()}))
            raise SourceError(f"there is no tensor {name!r} in {files}; is this the model that was meant?") from None


def open_safetensors(file: Path) -> FileTensors:
    """The tensors of one safetensors file. A `SourceError` says how it is damaged."""
    return FileTensors(_open_safetensors(file))


def _open_shards(index: Path, opener: Callable[[Path], Mapping[str, Entry]]) -> FileTensors:
    where = read_json_object(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise SourceError(f"{index} has no weight_map; fetch the model again")
    shards = {name: opener(file_beside(index, name)) for name in sorted(set(map(str, where.values())))}
    entries = {}
    for tensor, shard in where.items():
        if tensor not in shards[str(shard)]:
            raise SourceError(
                f"{index} says that {tensor} is in {shard}, which does not have it; fetch the model again"
            )
        entries[tensor] = shards[str(shard)][tensor]
    return FileTensors(entries)


def _open_safetensors(file: Path) -> Mapping[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        # Opening checks the header against the file's size; data is mapped, not read.
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            kinds = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{file} is damaged or not safetensors ({error}); fetch it again") from None
    return {
        name: Entry(file, shape, partial(_read_safetensors, file, name, dtype))
        for name, (shape, dtype) in kinds.items()
    }


def _read_safetensors(file: Path, name: str, dtype: str) -> Array:
    from safetensors import safe_open

    if dtype == "BF16":  # NumPy has no bfloat16
        with safe_open(file, framework="pt") as opened:
            widened: Array = opened.get_tensor(name).float().numpy()
            return widened
    if dtype.startswith("F8"):
        raise SourceError(f"{file}: {name} is stored as {dtype}; give the model in float32, float16 or bfloat16")
    with safe_open(file, framework="numpy") as opened:
        return np.asarray(opened.get_tensor(name))


def _open_pytorch(file: Path) -> Mapping[str, Entry]:
    return {
        name: Entry(file, tuple(tensor.shape), partial(_read_pytorch, tensor))
        for name, tensor in _map_pytorch(file).items()
    }


def _read_pytorch(tensor: Any) -> Array:
    array: Array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy().copy()
    return array


def _map_pytorch(file: Path) -> Mapping[str, Any]:
    """name -> torch tensor mapped from the file, so that keeping it keeps no weights in memory."""
    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises pickle, runtime, value and key errors for a bad file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"{file} cannot be read safely ({reason[:200]}); convert it to {SAFETENSORS}") from None
    if not isinstance(loaded, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise SourceError(f"{file} does not hold a plain table of tensors; convert it to {SAFETENSORS}")
    return {str(name): tensor.detach() for name, tensor in loaded.items()}


def _vocabulary(folder: Path, config: Mapping[str, Any]) -> list[bytes | str]:
    tokens = vocabulary.read_tokenizer(folder)
    if tokens is None:
        raise SourceError(f"no tokenizer in {folder}; looked for tokenizer.json and vocab.json")
    size = config.get("vocab_size")
    return vocabulary.with_timestamps(tokens, size) if isinstance(size, int) and size > 0 else tokens


def _optional(file: Path) -> Mapping[str, Any]:
    return read_json_object(file) if file.is_file() else {}


def _digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """By file name; the one file that lies deeper, whose name another has, by its path."""
    deep = folder / POOLING
    found = digests([file for file in files if file != deep])
    return {**found, POOLING: sha256_of(deep)} if deep in files else found


def _chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja, else what tokenizer_config.json has: a template, or a list of named ones."""
    if (file := folder / CHAT_TEMPLATE).is_file():
        return read_text(file)
    given = tokenizer_config.get("chat_template")
    if isinstance(given, list):
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, Mapping)}
        given = named.get("default")
    if given is not None and not isinstance(given, str):
        raise SourceError(f"{folder / TOKENIZER_CONFIG}: chat_template is {given!r:.80}; text is needed")
    return given


def _pooling(folder: Path) -> Literal["mean", "cls", "last"] | None:
    config = _optional(folder / POOLING)
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(chosen) > 1 or any(key not in _POOLINGS for key in chosen):
        raise SourceError(f"{folder / POOLING} pools by {', '.join(chosen)}; one of {', '.join(_POOLINGS)} is read")
    return _POOLINGS[chosen[0]] if chosen else None
