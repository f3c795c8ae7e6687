"""What a line of data becomes: token ids, and which of them are learned. Knows no text and no tokenizer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sequence. `learned` marks the tokens of which a loss is computed; `line` is where it stands in the data."""

    ids: NDArray[np.int32]  # (n,)
    learned: NDArray[np.bool_]  # (n,)
    line: int

    @classmethod
    def of(cls, ids: Sequence[int], learned: Sequence[bool], line: int) -> "Example":
        """Raises ValueError where there is not one of `learned` for each of `ids`."""
        if len(ids) != len(learned):
            raise ValueError(f"{len(ids)} ids and {len(learned)} marks; one mark an id is needed")
        return cls(np.array(ids, np.int32), np.array(learned, np.bool_), line)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> int:
        """Tokens of which a loss is computed; the first one never is, as nothing comes before it."""
        return int(self.learned[1:].sum())

    def cut(self, length: int) -> "Example":
        """The first `length` tokens."""
        return Example(self.ids[:length], self.learned[:length], self.line)

    def last_answer(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of all that comes before the last run of learned tokens, and of that run: what a model is asked, and what
        it is to answer."""
        learned = np.flatnonzero(self.learned)
        if not learned.size:
            return self.ids, self.ids[:0]
        stop = int(learned[-1]) + 1
        before = np.flatnonzero(~self.learned[:stop])
        start = int(before[-1]) + 1 if before.size else 0
        return self.ids[:start], self.ids[start:stop]

    def digest(self, salt: bytes = b"") -> bytes:
        """16 bytes that tell apart what is learned from what: equal for exact duplicates."""
        found = hashlib.blake2b(salt, digest_size=16)
        found.update(np.ascontiguousarray(self.ids, "<i4").tobytes())
        found.update(np.packbits(self.learned).tobytes())
        return found.digest()
