"""LoRA adapters at run time: each belongs to one base, and must be seen to do something.

The base is known by the pin (`sottovoce.adapter_pin`). Knows a probe; how an adapter is loaded is for the engine.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.adapter_pin import open_pinned, weights_of
from sottovoce.chat.loading import LoadedChat
from sottovoce.errors import EngineError, InputError

_PROBE = "The quick brown fox"


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
    if ready.bundle is not None:
        manifest = ready.bundle.manifest
        open_pinned(path, weights_of(manifest), manifest.name)
        return
    model = getattr(ready.engine, "gguf").path  # noqa: B009 - only a plain GGUF file is without a bundle
    # A folder is refused before gigabytes are hashed.
    weights = set[str]() if path.is_dir() else {_sha256(model)}
    open_pinned(path, weights, str(model), f"; make one for this file with: sottovoce adapter {model}")


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
