"""Which examples are learned and which are kept to measure on. Knows examples, not what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Digested(Protocol):
    """What can be told apart."""

    def digest(self, salt: bytes = b"") -> bytes:
        """Equal for exact duplicates, and for nothing else."""
        ...


Kept = TypeVar("Kept", bound=Digested)


@dataclass(frozen=True, slots=True)
class Split(Generic[Kept]):
    """`train` and `eval` in the data's order. `repeated` examples of train are exact duplicates of earlier ones, and
    stay; `shared` ones were in eval too, and were taken out of train."""

    train: tuple[Kept, ...]
    eval: tuple[Kept, ...]
    repeated: int
    shared: int


def by_seed(examples: Sequence[Kept], fraction: float, seed: int) -> Split[Kept]:
    """`fraction` of the examples for eval, one at least where it is above 0, those whose digests under the seed are the
    lowest: the order of the data changes nothing, and exact duplicates are on the same side.

    Fewer where duplicates would make it more, and none where all examples are one. Raises ValueError for a fraction
    outside 0 to 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction {fraction!r}; 0 up to, but not with, 1 is possible")
    groups: dict[bytes, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.digest(str(seed).encode()), []).append(index)
    wanted = max(1, round(fraction * len(examples))) if fraction else 0
    chosen: set[int] = set()
    for digest in sorted(groups):
        group = groups[digest]
        if len(chosen) + len(group) <= min(wanted, len(examples) - 1):
            chosen.update(group)
        if len(chosen) == wanted:
            break
    train = tuple(example for index, example in enumerate(examples) if index not in chosen)
    kept = tuple(example for index, example in enumerate(examples) if index in chosen)
    return Split(train, kept, _repeated(train), 0)


def by_file(train: Sequence[Kept], evaluation: Sequence[Kept]) -> Split[Kept]:
    """All of `evaluation` for eval, and of `train` what is not an exact duplicate of any of it."""
    held = {example.digest() for example in evaluation}
    kept = tuple(example for example in train if example.digest() not in held)
    return Split(kept, tuple(evaluation), _repeated(kept), len(train) - len(kept))


def _repeated(examples: Sequence[Digested]) -> int:
    return len(examples) - len({example.digest() for example in examples})
