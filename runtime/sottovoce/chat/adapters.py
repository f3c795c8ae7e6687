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
_PROBE = "The quick brown fox"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def attach(ready: LoadedChat, path: Path, scale: float) -> str:
    """Attach the adapter at `path`; the SHA-256 of the file, in hex.

    What was computed of the conversation is forgotten. Raises BundleError for a damaged file, InputError for an adapter
    of another base, one that does not say of which, or one that changes nothing; nothing is attached then.
    """
    _check_pin(ready, path)
    digest = _sha256(path)
    before = _probe(ready)
    ready.engine.attach(path, scale)
    try:
        after = _probe(ready)
        if not np.isfinite(after).all():
            raise EngineError(f"{path}: with this adapter the model computes no numbers; train it again")
        if np.array_equal(before, after):
            raise InputError(f"{path}: this adapter changes nothing; it was not trained, or its scale is too small")
    except BaseException:
        ready.engine.detach()
        raise
    ready.engine.truncate(0)
    return digest


def _check_pin(ready: LoadedChat, path: Path) -> None:
    pin = _pin(path, read_gguf(path).metadata.get(PIN))
    if ready.bundle is not None:
        here = set(ready.bundle.manifest.source.sha256.values())
        fits, name = pin <= here, ready.bundle.manifest.source.spec
    else:
        file = getattr(ready.engine, "gguf").path  # noqa: B009 - only a plain GGUF file is without a bundle
        fits, name = _sha256(file) in pin, str(file)
    if not fits:
        raise InputError(
            f"{path} was made for another model than {printable(name)}: it names weights with SHA-256 "
            f"{min(pin)[:12]}..., which are not this model's"
        )


def _pin(path: Path, value: Any) -> set[str]:
    sound = isinstance(value, list) and 0 < len(value) <= _MAX_FILES and all(map(_SHA256.fullmatch, value))
    if not sound:
        raise InputError(
            f"{path} does not say which model it was made for ({PIN}); make it anew with: sottovoce adapter"
        )
    return set(value)


def _probe(ready: LoadedChat) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits after a few fixed tokens, from an empty context."""
    vocabulary = ready.engine.vocabulary
    tokens = vocabulary.encode(_PROBE, special=False) or [0]
    ready.engine.truncate(0)
    return ready.engine.evaluate(tokens).copy()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
