"""The processes that train together, as far as the trainer knows of them; one process is a world of its own.

Everything that depends on a rank goes through here. How the processes are started and what carries their messages is
not known here.
"""

from dataclasses import dataclass
from typing import Any, Protocol


class World(Protocol):
    """Processes numbered 0 to `size` - 1. Each method is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """Which of them this one is."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and shows progress; true for rank 0 alone."""
        ...

    def sum(self, values: list[float]) -> list[float]:
        """Each value added up over all processes, in float64, in the order of ranks."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of them."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, by rank; picklable."""
        ...

    def barrier(self) -> None:
        """Returns when all have come here."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """A world of one process."""

    rank: int = 0
    size: int = 1
    is_main: bool = True

    def sum(self, values: list[float]) -> list[float]:
        """The values themselves."""
        return values

    def any(self, flag: bool) -> bool:
        """The flag itself."""
        return flag

    def gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def barrier(self) -> None:
        """Nobody to wait for."""
