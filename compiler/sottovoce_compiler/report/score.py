"""Counting errors: substitutions, deletions and insertions of a best alignment, and what a rate's interval
is.

Knows lists of words or characters and sums of counts. Does not know where a text came from; never averages
rates: a rate over several clips is the sum of their errors over the sum of their reference units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from sottovoce_compiler.report.normalize import units

BOOTSTRAP_SAMPLES = 2000  # the 2.5 % tails hold 50 samples each
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors of one text or of many, in words or in characters (never both); `reference` is the units in the
    truth.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0

    @property
    def errors(self) -> int:
        """Everything that is wrong."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors for each unit of the reference (may exceed 1); None where there is no reference to divide
        by.
        """
        return self.errors / self.reference if self.reference else None

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference + other.reference,
        )


def count_errors(reference: str, hypothesis: str, language: str | None) -> ErrorCounts:
    """Errors of `hypothesis` against `reference`, both normalised for `language`; its words or characters are
    counted.
    """
    truth, said = units(reference, language), units(hypothesis, language)
    tags = [edit.tag for edit in Levenshtein.editops(truth, said)]
    return ErrorCounts(tags.count("replace"), tags.count("delete"), tags.count("insert"), len(truth))


def total(counts: Sequence[ErrorCounts]) -> ErrorCounts:
    """The sum; of nothing, zero errors in zero units."""
    return sum(counts, ErrorCounts())


def bootstrap_interval(counts: Sequence[ErrorCounts], seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of the rate, clips drawn with replacement (Bisani and Ney 2004), equal for equal
    seeds.

    None where fewer than two clips have a reference: one clip says nothing about the next.
    """
    table = np.array([(count.errors, count.reference) for count in counts if count.reference], dtype=np.int64)
    if len(table) < 2:
        return None
    # The legacy generator's stream is frozen by numpy, so that a report stays the same bytes across versions.
    draw = np.random.RandomState(seed)
    sums = np.array([table[draw.randint(0, len(table), len(table))].sum(axis=0) for _ in range(BOOTSTRAP_SAMPLES)])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [tail, 100 - tail])
    return float(low), float(high)
