"""Which base a LoRA adapter was made for: it names the files of the base's weights by their SHA-256.

A bundle names the same files as its source, so one adapter fits every precision of its base, and no other model. Knows
the pin in a GGUF file's metadata (`sottovoce adapter` writes it); nothing of what an adapter holds.
"""

import re
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError
from sottovoce.gguf import GgufFile, read_gguf
from sottovoce.manifest import Manifest, printable

PIN = "sottovoce.base.sha256"  # an array of hex digests: the files of the base's weights
_MAX_FILES = 1000
_WEIGHTS = (".safetensors", ".bin", ".gguf")  # what files that hold weights end in
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_weight_file(name: str) -> bool:
    """Whether a source's file of that name counts as its weights, by which an adapter knows its base."""
    return name.endswith(_WEIGHTS)


def weights_of(manifest: Manifest) -> set[str]:
    """The SHA-256, in hex, of the files of weights that a bundle was made from."""
    return {digest for file, digest in manifest.source.sha256.items() if is_weight_file(file)}


def open_pinned(path: Path, weights: set[str], name: str, remedy: str = "") -> GgufFile:
    """The header of the adapter at `path`, once it is known to be for the base `name` with these `weights`.

    Raises BundleError for a damaged file, InputError for a folder, for an adapter of another base, or one that does not
    say of which; `remedy` ends that message.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; make a file of it with: sottovoce adapter SOURCE {path} -o FILE.gguf")
    file = read_gguf(path)
    pin = _pin(path, file.metadata.get(PIN))
    if pin != weights:
        raise InputError(
            f"{path} was made for another model than {printable(name)}: it names weights with SHA-256 "
            f"{min(pin)[:12]}..., which are not this model's{remedy}"
        )
    return file


def _pin(path: Path, value: Any) -> set[str]:
    sound = isinstance(value, list) and 0 < len(value) <= _MAX_FILES and all(map(_SHA256.fullmatch, value))
    if not sound:
        raise InputError(
            f"{path} does not say which model it was made for ({PIN}); make it anew with: sottovoce adapter"
        )
    return set(value)
