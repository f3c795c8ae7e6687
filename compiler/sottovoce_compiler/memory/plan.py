"""What a prediction of memory says: what a model takes while it is opened, what it holds, what each use adds.

Bytes within; megabytes (10^6 bytes, as `sottovoce bench` has them) in the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEGABYTE = 1e6
NOT_PREDICTED = "not_predicted"  # the key of a report's `memory` that says why it has no figures

Parts = Mapping[str, int]  # what takes it -> bytes


@dataclass(frozen=True, slots=True)
class Use:
    """One way of using a bundle, and what it adds to what is held. A use that is not `needed` can be done without."""

    name: str
    adds: Parts
    needed: bool = True


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of one bundle in one process. The first of `uses` is what `sottovoce bench` does.

    `opening` is what is taken beside `held` for a moment, while the model is opened. `imports` maps each library that
    is loaded to its bytes: two bundles in one process load it once.
    """

    imports: Parts
    held: Parts
    opening: Parts
    uses: tuple[Use, ...]

    def peak(self, use: Use) -> int:
        """The most that is taken above the imports, from opening the model to the end of `use`."""
        return sum(self.held.values()) + max(sum(self.opening.values()), sum(use.adds.values()))

    @property
    def most(self) -> int:
        """The peak of the use that takes most, of those that are needed; above the imports."""
        return max(self.peak(use) for use in self.uses if use.needed)

    @property
    def imported(self) -> int:
        return sum(self.imports.values())

    def to_json(self) -> dict[str, Any]:
        """The report's `memory`; megabytes."""
        first = self.uses[0]
        parts = {**self.held, **first.adds}
        return {
            "peak_mb": megabytes(self.peak(first)),
            "with_imports_mb": megabytes(self.most + self.imported),
            "imports": {name: megabytes(size) for name, size in self.imports.items()},
            "uses": {use.name: megabytes(self.peak(use)) for use in self.uses},
            "opening_mb": megabytes(sum(self.held.values()) + sum(self.opening.values())),
            "parts": {name: megabytes(size) for name, size in parts.items()},
        }


def megabytes(size: float) -> float:
    """To a tenth."""
    return round(size / MEGABYTE, 1)
