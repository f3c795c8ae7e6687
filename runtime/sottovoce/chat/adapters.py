"""LoRA adapters at run time: each belongs to one base, and must be seen to do something.

An adapter names the files of the weights it was trained on by their SHA-256 (`sottovoce adapter` writes that). A bundle
names the same files as its source, so one adapter fits every precision of its base, and no other model. Knows that pin
and a probe; how an adapter is loaded is the engine's business.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.chat.loading import LoadedChat
from sottovoce.errors import EngineError, InputError
from sottovoce.gguf import read_gguf
from sottovoce.manifest import printable

PIN = "sottovoce.base.sha256"  # an array of hex digests: the files of the base's weights
_MAX_FILES = 1000
_WEIGHTS = (".safetensors", ".bin", ".gguf")  # what files that hold weights end in
_PROBE = "The quick brown fox"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_weight_file(name: str) -> bool:
    """Whether a source's file of that name counts as its weights, by which an adapter knows its base."""
    return name.endswith(_WEIGHTS)


def attach(ready: LoadedChat, path: Path, scale: float, before: int = 0) -> str:
    """Attach the adapter at `path` beside the `before` that are attached; the SHA-256 of the file, in hex.

    What was computed of the conversation is forgotten. Raises BundleError for a damaged file, InputError for an adapter
    of another base, one that does not say of which, or one that changes nothing; only those from before are attached
    then.
    """
    _check_pin(ready, path)
    digest = _sha256(path)
    plain = _probe(ready)
    ready.engine.attach(path, scale)
    try:
        after = _probe(ready)
        if not np.isfinite(after).all():
            raise EngineError(f"{path}: with this adapter the model computes no numbers; train it again")
        if np.array_equal(plain, after):
            raise InputError(f"{path}: this adapter changes nothing; it was not trained, or its scale is too small")
    except BaseException:
        ready.engine.detach(before)
        raise
    ready.prefix.truncate(0)
    return digest


def _check_pin(ready: LoadedChat, path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; make a file of it with: sottovoce adapter SOURCE {path} -o FILE.gguf")
    pin = _pin(path, read_gguf(path).metadata.get(PIN))
    if ready.bundle is not None:
        manifest = ready.bundle.manifest
        here = {digest for file, digest in manifest.source.sha256.items() if is_weight_file(file)}
        name, remedy = manifest.name, ""
    else:
        model = getattr(ready.engine, "gguf").path  # noqa: B009 - only a plain GGUF file is without a bundle
        here, name, remedy = {_sha256(model)}, str(model), f"; make one for this file with: sottovoce adapter {model}"
    if pin != here:
        raise InputError(
            f"{path} was made for another model than {printable(name)}: it names weights with SHA-256 "
            f"{min(pin)[:12]}..., which are not this model's{remedy}"
        )


def _pin(path: Path, value: Any) -> set[str]:
    sound = isinstance(value, list) and 0 < len(value) <= _MAX_FILES and all(map(_SHA256.fullmatch, value))
    if not sound:
        raise InputError(
            f"{path} does not say which model it was made for ({PIN}); make it anew with: sottovoce adapter"
        )
    return set(value)


def _probe(ready: LoadedChat) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits after a few fixed tokens, from an empty context.

    By way of the prefix cache: what an error or an interrupt leaves in the engine is then known for what it is.
    """
    vocabulary = ready.engine.vocabulary
    tokens = vocabulary.encode(_PROBE, special=False) or [0]
    if vocabulary.adds_bos and vocabulary.bos is not None:
        tokens = [vocabulary.bos, *tokens]
    ready.prefix.truncate(0)
    return ready.prefix.evaluate(tokens[: ready.engine.context]).copy()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
