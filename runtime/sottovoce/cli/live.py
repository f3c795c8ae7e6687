"""What the two streaming commands share: the options of a stream, Ctrl-C, the level of what is heard.

Knows sources and signals. Knows nothing of what is shown.
"""

import argparse
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sottovoce.streaming.chunks import AudioChunk, AudioGap
    from sottovoce.streaming.sources import LiveSource

LEVEL_SECONDS = 0.1  # of the newest audio


@dataclass
class Interruption:
    """Whether Ctrl-C ended the stream."""

    asked: bool = False


@contextmanager
def stopped_by_ctrl_c(source: "LiveSource") -> Iterator[Interruption]:
    """The first Ctrl-C stops the source, so that all that was said is settled; a second one interrupts as always.

    A decoding that runs is not cut off in the middle.
    """
    state, before = Interruption(), signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        state.asked = True
        source.stop()

    if before is signal.SIG_IGN or before is None:  # run in the background, or set by something that is not Python
        yield state
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)


def metered(source: "LiveSource", level: Callable[[float], None]) -> "Iterator[AudioChunk | AudioGap]":
    """The same chunks; the level of each in decibels below full scale goes to `level`."""
    import numpy as np

    from sottovoce.streaming.chunks import AudioChunk

    for chunk in source:
        if isinstance(chunk, AudioChunk) and len(chunk.samples):
            newest = chunk.samples[-max(1, round(LEVEL_SECONDS * chunk.sample_rate)) :]
            power = float(np.mean(np.square(newest, dtype=np.float64)))
            level(10 * math.log10(power) if 0 < power < math.inf else -math.inf)
        yield chunk


def positive_seconds(text: str) -> float:
    """The value of an option that is a time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those options that the user set; the rest keep the defaults of StreamOptions."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
