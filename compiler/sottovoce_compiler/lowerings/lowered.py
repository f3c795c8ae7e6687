"""What lowering a model to a format gives: the files of a bundle, and what its manifest and report say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Lowered:
    """`files` are a bundle's model files by name; `engine` and `model` those parts of its manifest.

    `weights` is what the report says of how the weights are stored (for speech, of what the model costs), `notes` what
    a user should know of what the engine does otherwise than the source; `packages` wrote it, and their versions belong
    into the report.
    """

    files: Mapping[str, bytes | Path]
    engine: Mapping[str, Any]
    model: Mapping[str, Any]
    weights: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
