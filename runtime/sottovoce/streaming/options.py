"""How to stream: one frozen object; the defaults were chosen by measurement (docs/streaming.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sottovoce.errors import InputError


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Times in seconds.

    language      code of the language spoken; heard anew after each pause of 2 s where it is None
    task          "transcribe", or "translate" into English
    step          audio between two decodings at least; a machine that takes longer makes fewer, and says less that is
                  not final
    hold_back     words that end nearer than this to the newest audio stay open; doubtful ones up to four times as long
    end_of_speech silence that ends speech
    window        audio decoded at a time at most; older audio is let go at the best pause
    vad_threshold probability of speech from which it counts as speech
    partials      whether text is said before it is final
    initial_prompt names and terms to expect, in the language spoken
    """

    language: str | None = None
    task: str = "transcribe"
    step: float = 0.3
    hold_back: float = 0.5
    end_of_speech: float = 0.6
    window: float = 20.0
    vad_threshold: float = 0.4
    partials: bool = True
    initial_prompt: str | None = None


_RANGES = {  # seconds, or a probability
    "step": (0.05, 10.0),
    "hold_back": (0.0, 10.0),
    "end_of_speech": (0.1, 10.0),
    "window": (5.0, 28.0),
    "vad_threshold": (0.2, 0.95),
}

SETTINGS = tuple(_RANGES)  # what depends on the machine and the model: a target, and so a bundle, may have its own


def stream_settings(given: Mapping[str, Any]) -> dict[str, float]:
    """The settings of a target or a bundle, each by its name in `SETTINGS`. Raises InputError naming a wrong one."""
    unknown = sorted(given.keys() - set(SETTINGS))
    if unknown:
        raise InputError(f"no stream setting {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    stream_options(dict(given))
    return {name: float(value) for name, value in given.items()}


def stream_options(given: dict[str, Any]) -> StreamOptions:
    """Raises InputError naming an option that does not exist or a value that makes no sense."""
    names = [one.name for one in fields(StreamOptions)]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise InputError(f"no option {unknown[0]!r}; there are {', '.join(sorted(names))}")
    for name, (least, most) in _RANGES.items():
        value = given.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InputError(f"{name} = {value!r}; {least:g} to {most:g} is possible")
    if not isinstance(given.get("partials", True), bool):
        raise InputError(f"partials = {given['partials']!r}; True or False is needed")
    for name in ("language", "task", "initial_prompt"):
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} = {value!r}; a text is needed")
    return StreamOptions(**given)
