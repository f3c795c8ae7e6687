"""Another bundle that shall be used beside the one that is compiled, as its own report predicts its memory.

A bundle is untrusted: what its report says is checked before it is reckoned with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.bundle import open_bundle
from sottovoce.errors import InputError
from sottovoce.manifest import printable
from sottovoce_compiler.memory.plan import MEGABYTE, NOT_PREDICTED

_MOST_MB = 1e7  # ten terabytes: what is said beyond is nonsense


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Bytes: `most` with what it imports, `imports` by library."""

    name: str
    most: int
    imports: Mapping[str, int]

    @property
    def above_imports(self) -> int:
        return max(0, self.most - sum(self.imports.values()))


def read_neighbour(path: Path) -> Neighbour:
    """The bundle at `path`. Raises BundleError where it cannot be opened, InputError where its report says nothing of
    memory that could be."""
    memory = open_bundle(path).report().get("memory")
    if isinstance(memory, Mapping) and NOT_PREDICTED in memory:
        raise InputError(f"--beside {path}: the memory of its format is not predicted; `sottovoce bench` measures it")
    if not isinstance(memory, Mapping) or not isinstance(imports := memory.get("imports"), Mapping):
        raise InputError(f"--beside {path}: its report predicts no memory; compile it again, with this version")
    found = {printable(str(name)): _bytes(path, value) for name, value in imports.items()}
    return Neighbour(path.name, _bytes(path, memory.get("with_imports_mb")), found)


def _bytes(path: Path, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"--beside {path}: its report has {value!r:.50} MB of memory; a number is needed")
    if not 0 <= value <= _MOST_MB:
        raise InputError(
            f"--beside {path}: its report has {value!r:.50} MB of memory; 0 to {_MOST_MB:.0f} are possible"
        )
    return round(value * MEGABYTE)
