"""A room with a microphone and a loudspeaker in it: what the loudspeaker plays, the microphone hears."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sottovoce.chat.types import Delta
from sottovoce.streaming.chunks import AudioChunk

EXAMPLE = Path(__file__).parents[3] / "examples" / "raspberry-pi"
RATE = 16_000
PIECE = RATE // 10
PATIENCE = 30.0  # seconds that anything here waits at most
Samples = NDArray[np.float32]


class Room:
    """Time passes by what the microphone gives: a tenth of a second a piece, as fast as it is taken.

    `script` is what happens, in order: samples (n,) that somebody says, a number of seconds without anything, or a
    function that the room waits for to be true, in silence. Then the microphone ends.
    """

    def __init__(self, script: Sequence[Samples | float | Callable[[], bool]]) -> None:
        self.said: list[str] = []
        self._script = iter(self._pieces(script))
        self._changed = threading.Condition()
        self._playing: Samples = np.zeros(0, np.float32)
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AudioChunk:
        heard = next(self._script, None)
        with self._changed:
            if heard is None or self._ended:
                self._ended = True
                self._changed.notify_all()
                raise StopIteration
            echo, self._playing = self._playing[:PIECE], self._playing[PIECE:]
            heard = heard.copy()
            heard[: echo.size] += echo
            self._changed.notify_all()
        return AudioChunk(heard, RATE)

    def stop(self) -> None:
        self._ended = True

    def close(self) -> None:
        self._ended = True

    def play(self, samples: Samples) -> None:
        """Returns when it has been heard, or `silence` was called."""
        with self._changed:
            self._playing = samples
            assert self._changed.wait_for(lambda: not self._playing.size or self._ended, PATIENCE)

    def silence(self) -> None:
        with self._changed:
            self._playing = np.zeros(0, np.float32)
            self._changed.notify_all()

    def _pieces(self, script: Sequence[Samples | float | Callable[[], bool]]) -> Iterator[Samples]:
        for part in script:
            if isinstance(part, np.ndarray):
                padded = np.concatenate([part, np.zeros(-part.size % PIECE, np.float32)])
                yield from padded.reshape(-1, PIECE)
            elif callable(part):
                for _ in range(2000):
                    yield np.zeros(PIECE, np.float32)
                    if part():
                        break
                    threading.Event().wait(0.005)  # the others need a moment of real time too
                else:
                    raise AssertionError("the room has waited for minutes")
            else:
                yield from (np.zeros(PIECE, np.float32) for _ in range(round(part * 10)))


@dataclass
class Loudspeaker:
    """Says everything with the same recording, into the room."""

    room: Room
    recording: Samples

    def say(self, text: str) -> None:
        self.room.said.append(text)
        self.room.play(self.recording)

    def stop(self) -> None:
        self.room.silence()


class Parrot:
    """Answers by a table, in pieces of a few letters; keeps the conversations it was given."""

    def __init__(self, answers: Sequence[str]) -> None:
        self._answers = iter(answers)
        self.asked: list[list[dict[str, Any]]] = []
        self.closed = 0

    def stream(self, messages: Any, **options: Any) -> Iterator[Delta]:
        self.asked.append([dict(message) for message in messages])
        answer = next(self._answers, "I have nothing more to say.")
        try:
            for start in range(0, len(answer), 5):
                yield Delta(answer[start : start + 5])
        finally:
            self.closed += 1
