"""A packed bundle as the device runs it: what the report is measured on.

Knows the runtime's public `Transcriber` and nothing of what is inside a bundle.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import sottovoce
from sottovoce.errors import InputError
from sottovoce.types import Segment
from sottovoce_compiler.report.dataset import Clip
from sottovoce_compiler.report.hypothesis import Hypothesis


def bundle_transcriber(path: str | Path) -> Callable[[Clip], Hypothesis]:
    """A function from clips to what the bundle says of them, with the defaults of the device.

    The language is left to the model first, and that answer is what language identification is judged by.
    Where the clip's language is known and was not the one heard, the clip is transcribed again in the known
    one, so that the error rate speaks of words alone.
    """
    transcriber = sottovoce.Transcriber(str(path))

    def transcribe(clip: Clip) -> Hypothesis:
        segments, info = transcriber.transcribe(str(clip.file))
        text = _join(segments)
        if clip.is_speech and clip.language and info.language != clip.language:
            # An English-only model takes no other language: its one answer stands.
            with suppress(InputError):
                text = _join(transcriber.transcribe(str(clip.file), language=clip.language)[0])
        if len(transcriber.languages) == 1:
            return Hypothesis(text)  # a model that knows one language identifies none
        return Hypothesis(text, info.language, info.language_probability)

    return transcribe


def _join(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()
