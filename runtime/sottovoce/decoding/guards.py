"""Signs that a transcript is not what was said: loops, text that compresses too well, improbable text.

Thresholds are options; the measures are those of Radford et al. 2022, section 4.5, and a watch for loops while they
happen.
"""

import zlib
from collections.abc import Sequence

_LEAST_REPEATED = 16  # tokens that a loop must cover before it is called one: "no, no, no" is speech
_LEAST_TIMES = 4
_LONGEST_PERIOD = 32  # tokens
_CHARACTERS_A_SECOND = 35
_SPARE_CHARACTERS = 25


def compression_ratio(text: str) -> float:
    """How many times smaller zlib makes the text; prose stays below 2.4."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def too_fast(text: str, seconds: float) -> bool:
    """Whether there are more characters than anybody says in `seconds`: fast English has about 25 a second."""
    return len(text) > _SPARE_CHARACTERS + _CHARACTERS_A_SECOND * seconds


def loop_start(tokens: Sequence[int]) -> int | None:
    """Where the tail of `tokens` begins to repeat itself: the index after the first time round, or None.

    A phrase of up to 32 tokens counts when it came four times in a row (three, if it has eight tokens or more) and the
    repetition covers at least 16 tokens.
    """
    for period in range(1, min(_LONGEST_PERIOD, len(tokens) // 3) + 1):
        covered = period
        while covered < len(tokens) and tokens[-1 - covered] == tokens[-1 - covered + period]:
            covered += 1
        times = covered // period
        if covered >= _LEAST_REPEATED and times >= (3 if period >= 8 else _LEAST_TIMES):
            return len(tokens) - covered + period
    return None
