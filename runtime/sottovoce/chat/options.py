"""How to answer: one frozen object under the OpenAI API's names, checked when it is made.

Knows names, ranges and defaults. What the numbers do is in `sampling`, `text`, `overflow` and `lookup`.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from sottovoce.errors import InputError

MAX_STOPS = 16
MAX_STOP_LENGTH = 1000  # characters
MAX_BIASES = 1024
OVERFLOWS = ("error", "drop_oldest")

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.1, 10.0),
}
_WHOLE_RANGES = {
    "top_k": (0, 1_000_000),
    "seed": (-(1 << 63), (1 << 63) - 1),
    "max_tokens": (1, (1 << 31) - 1),
    "speculate": (0, 16),
}
_OPTIONAL = frozenset({"seed", "max_tokens"})

# What a model's maker may recommend; the rest belongs to whoever asks.
DEFAULTABLE = frozenset(_RANGES) | {"top_k", "max_tokens", "stop", "speculate"}


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Raises InputError naming a value that makes no sense.

    temperature         divides the logits; 0 (and anything under 0.001) always takes the likeliest token
    top_k               only the k likeliest tokens; 0 for all
    top_p               only the likeliest tokens that together have this probability; 1 for all
    min_p               only tokens at least this fraction as likely as the likeliest; 0 for all
    presence_penalty    taken off the logit of every token that is in the answer
    frequency_penalty   taken off the logit of a token, for every time it is in the answer
    repetition_penalty  divides a positive logit, multiplies a negative one, of tokens in prompt or answer; 1 for none
    logit_bias          added to the logits of tokens: id to -100 to 100
    seed                the same seed gives the same text on the same engine; None for another text every time
    max_tokens          longest answer, in tokens; None until the context is full
    stop                text at which the answer ends, itself not shown: one string or up to 16
    overflow            what happens when the messages do not fit: "error", or "drop_oldest" turns
    speculate           tokens guessed ahead from the prompt and verified at once; 0 for none

    The sampling defaults are moderate: small models wander at temperature 1, and loop at 0.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | list[str] | str = ()
    overflow: str = "error"
    speculate: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _check(name, getattr(self, name), least, most, int | float)
        for name, (low, high) in _WHOLE_RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                _check(name, value, low, high, int)
        if self.overflow not in OVERFLOWS:
            raise InputError(f"overflow = {self.overflow!r}; {' or '.join(map(repr, OVERFLOWS))} is possible")
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))

    @classmethod
    def of(cls, defaults: Mapping[str, Any], **given: Any) -> Self:
        """What was given over a model's own `defaults` over ours; None counts as not given.

        Raises InputError naming an option that does not exist, one that `defaults` may not have, or a wrong value:
        check `defaults` alone first (`ChatOptions.of(defaults)`) to know whose fault it is.
        """
        for name in defaults:
            if name not in DEFAULTABLE:
                raise InputError(f"no default {name!r}{_suggestion(name, DEFAULTABLE)}")
        names = [one.name for one in fields(cls)]
        for name in given:
            if name not in names:
                raise InputError(f"no option {name!r}{_suggestion(name, names)}")
        merged = {**defaults, **{name: value for name, value in given.items() if value is not None}}
        return cls(**merged)


def _suggestion(name: object, names: Any) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(names))}"


def _check(name: str, value: Any, least: float, most: float, kind: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        whole = "a whole number from " if kind is int else ""
        raise InputError(f"{name} = {_shown(value)}; {whole}{least:g} to {most:g} is possible")


def _shown(value: object) -> str:
    """The value as the user wrote it, short enough for one line."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "a number that is too long"
    return text if len(text) <= 80 else text[:77] + "..."


def _stops(given: Any) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given
    if not isinstance(stops, list | tuple) or any(not isinstance(one, str) for one in stops):
        raise InputError(f"stop = {_shown(given)}; a string or a list of strings is needed")
    if len(stops) > MAX_STOPS:
        raise InputError(f"stop has {len(stops)} strings; at most {MAX_STOPS} are possible")
    for one in stops:
        if not 1 <= len(one) <= MAX_STOP_LENGTH:
            raise InputError(f"stop has a string of {len(one)} characters; 1 to {MAX_STOP_LENGTH} are possible")
    return tuple(stops)


def _biases(given: Any) -> dict[int, float]:
    """JSON has only strings as keys, so a number written as one is a token too."""
    if not isinstance(given, Mapping):
        raise InputError(f"logit_bias = {_shown(given)}; a mapping from token to number is needed")
    if len(given) > MAX_BIASES:
        raise InputError(f"logit_bias has {len(given)} tokens; at most {MAX_BIASES} are possible")
    biases = {}
    for key, value in given.items():
        token = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10 else key
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise InputError(f"logit_bias has the token {_shown(key)}; a whole number from 0 is needed")
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.fabs(value) <= 100
        if not fine:
            raise InputError(f"logit_bias of token {token} = {_shown(value)}; -100 to 100 is possible")
        biases[token] = float(value)
    return biases
