"""An ear that can be shut, and what is said as whole utterances."""

from collections.abc import Sequence

import numpy as np
from hearing import Ear, utterances
from tests.examples.raspberry_pi.room_case import PIECE, Room

from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.events import Committed, Event, Partial, SpeechEnded, SpeechStarted

LOUD = np.ones(PIECE, np.float32)


def heard(ear: Ear, count: int) -> list[float]:
    """The loudest of each of the next pieces."""
    chunks = [next(ear) for _ in range(count)]
    assert all(isinstance(chunk, AudioChunk) and len(chunk.samples) == PIECE for chunk in chunks)
    return [float(chunk.samples.max()) for chunk in chunks if isinstance(chunk, AudioChunk)]


def test_an_ear_that_is_shut_hears_silence_of_the_same_length_and_a_little_longer() -> None:
    ear = Ear(Room([np.tile(LOUD, 20)]), after=0.3)
    assert heard(ear, 2) == [1, 1]
    with ear.shut():
        assert heard(ear, 3) == [0, 0, 0]
    assert heard(ear, 5) == [0, 0, 0, 1, 1]


def test_a_long_piece_that_came_partly_while_the_ear_was_shut_is_not_heard() -> None:
    class Late(Room):
        def __next__(self) -> AudioChunk:
            return AudioChunk(np.ones(16_000, np.float32), 16_000)

    ear = Ear(Late([]), after=0.3)
    with ear.shut():
        pass
    assert [float(next(ear).samples.max()) for _ in range(2)] == [0, 1]  # type: ignore[union-attr]


def test_a_gap_is_passed_on() -> None:
    class Broken(Room):
        def __next__(self) -> AudioGap:  # type: ignore[override]
            return AudioGap(1.5)

    assert next(Ear(Broken([]))) == AudioGap(1.5)


def test_stopping_the_ear_stops_the_microphone() -> None:
    ear = Ear(Room([10.0]))
    ear.stop()
    assert list(ear) == []


def told(*events: Event) -> Sequence[tuple[str, bool]]:
    return list(utterances(events))


def test_an_utterance_grows_and_is_complete_when_the_speaker_pauses() -> None:
    assert told(
        SpeechStarted(0.0),
        Partial(" How", 0.1),
        Committed(" How are", (), "en"),
        Partial(" you", 0.4),
        Committed(" you?", (), "en"),
        SpeechEnded(1.0),
        Committed(" Fine.", (), "en"),
        SpeechEnded(2.0),
    ) == [
        ("How", False),
        ("How are", False),
        ("How are you", False),
        ("How are you?", False),
        ("How are you?", True),
        ("Fine.", False),
        ("Fine.", True),
    ]


def test_noise_in_which_nothing_was_said_is_no_utterance() -> None:
    assert told(SpeechStarted(0.0), Partial("", 0.1), SpeechEnded(1.0)) == []
