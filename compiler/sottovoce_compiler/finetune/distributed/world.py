"""A `World` over torch.distributed, whose numbers travel between CPUs. Knows the collectives; how processes are started
is `launch`'s business."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True, slots=True)
class Processes:
    """The default process group, which must be there."""

    @property
    def rank(self) -> int:
        """Which process this one is."""
        return distributed.get_rank()

    @property
    def size(self) -> int:
        """How many there are."""
        return distributed.get_world_size()

    @property
    def is_main(self) -> bool:
        """Whether this is the first."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Each value added up in float64, in the order of ranks: the same in every process, and in every run."""
        mine = torch.tensor(values, dtype=torch.float64)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyone, mine)
        total = torch.zeros_like(mine)
        for one in everyone:
            total += one
        found: list[float] = total.tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of them."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, by rank; picklable."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        """Returns when all have come here."""
        distributed.barrier()
