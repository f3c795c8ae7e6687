"""Where sequences that lie one behind the other begin and end, which is all that keeps packed examples apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Segments:
    """`offsets` (n + 1,) int32: segment i is rows offsets[i] to offsets[i + 1]. `lengths` are the same as Python
    integers, so that no loop on the CPU and no launch on a GPU waits for the device."""

    offsets: torch.Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Segments":
        """Segments of these lengths, one behind the other. Raises ValueError for a length below one."""
        if wrong := [length for length in lengths if length < 1]:
            raise ValueError(f"a segment of {wrong[0]} rows; each has one or more")
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        offsets[1:] = torch.tensor(list(lengths), dtype=torch.int32).cumsum(0)
        return cls(offsets.to(device), tuple(lengths))

    @property
    def total(self) -> int:
        """Rows of all segments together."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """Rows of the longest segment; 0 where there are none."""
        return max(self.lengths, default=0)

    def bounds(self) -> list[tuple[int, int]]:
        """First row and the row after the last of each segment."""
        begins, position = [], 0
        for length in self.lengths:
            begins.append((position, position + length))
            position += length
        return begins

    def to(self, device: torch.device | str) -> "Segments":
        """The same with `offsets` on another device."""
        return Segments(self.offsets.to(device), self.lengths)
