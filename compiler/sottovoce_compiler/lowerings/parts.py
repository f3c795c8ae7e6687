"""A speech model's precision as a text: one word for the whole model, or one for each part.

Knows how such a text is read and written. Which precisions a format has is in `formats`.
"""

from collections.abc import Mapping

from sottovoce.errors import InputError
from sottovoce_targets import PARTS


def by_part(precision: str) -> dict[str, str]:
    """The precision of each of `PARTS`, for "int8" as for "encoder int8, decoder int4, head int8", where `=` may stand
    for a space. Raises InputError for a part that is unknown, missing or named twice.
    """
    words = precision.replace("=", " ").split(",")
    pairs = [word.split() for word in words]
    if len(pairs) == 1 and len(pairs[0]) == 1:
        return dict.fromkeys(PARTS, pairs[0][0])
    if sorted(pair[0] for pair in pairs if len(pair) == 2) != sorted(PARTS) or len(pairs) != len(PARTS):
        named = ",".join(f"{part}=int8" for part in PARTS)
        raise InputError(f"precision {precision!r:.100}: give one for the whole model, or one for each part: {named}")
    found = {pair[0]: pair[1] for pair in pairs}
    return {part: found[part] for part in PARTS}


def in_words(parts: Mapping[str, str]) -> str:
    """What `by_part` reads: one word where all parts have the same."""
    different = set(parts.values())
    return different.pop() if len(different) == 1 else ", ".join(f"{part} {parts[part]}" for part in PARTS)
