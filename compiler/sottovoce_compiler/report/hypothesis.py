"""What a model, source or artifact, says of one clip."""

from dataclasses import dataclass

from sottovoce.types import Word


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The text of one clip and the language heard in it.

    `language` is what the model heard by itself, even where `text` was then made in the clip's known
    language; it is None for a model that cannot tell. `words` have times in seconds from the clip's start and
    may be empty.
    """

    text: str
    language: str | None = None
    language_probability: float | None = None
    words: tuple[Word, ...] = ()
