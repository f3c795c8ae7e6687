"""What a stream says, in order: plain frozen data.

Times are seconds of audio from the start of the stream. Committed text is final; the text of all `Committed` events,
joined, is the transcript. A `Partial` is what follows the committed text as far as it is known; the next `Partial` or
`Committed` takes it back.
"""

from dataclasses import dataclass

from sottovoce.types import Word


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak at `time`."""

    time: float


@dataclass(frozen=True, slots=True)
class Partial:
    """Text that may still change, said from `start` on; empty where earlier partial text was taken back."""

    text: str
    start: float


@dataclass(frozen=True, slots=True)
class Committed:
    """Text that stays: each word once, in order; `text` is the text of `words` joined. `language` is the code of the
    language it was heard in."""

    text: str
    words: tuple[Word, ...]
    language: str


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The speaker fell silent at `time`; everything said before is committed."""

    time: float


@dataclass(frozen=True, slots=True)
class AudioDropped:
    """Audio from `start` to `end` was lost before it could be heard, because its source does not wait."""

    start: float
    end: float


Event = SpeechStarted | Partial | Committed | SpeechEnded | AudioDropped
