"""LocalAgreement on hypotheses that are written down."""

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("faster_whisper")

from peers.local_agreement import Heard, LocalAgreement

from sottovoce.streaming.events import Committed, Event, Partial
from sottovoce.types import Word

RATE = 16_000


class Script:
    """Says the i-th hypothesis at the i-th decoding; remembers the seconds and the prompt it was given."""

    def __init__(self, *hypotheses: Heard) -> None:
        self.hypotheses = list(hypotheses)
        self.asked: list[tuple[float, str]] = []

    def __call__(self, samples: np.ndarray, prompt: str) -> Heard:
        self.asked.append((samples.size / RATE, prompt))
        return self.hypotheses[len(self.asked) - 1]


def heard(text: str, start: float = 0.0, each: float = 1.0, ends: Sequence[float] = ()) -> Heard:
    """Words of a text one after the other, `each` seconds long."""
    words = text.split()
    timed = (Word(start + i * each, start + (i + 1) * each, f" {word}", 1.0) for i, word in enumerate(words))
    return Heard(tuple(timed), tuple(ends))


def said(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Committed)]


def audio(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def test_words_are_final_once_two_hypotheses_in_a_row_agree_on_them() -> None:
    script = Script(heard("one two free"), heard("One, two three four"), heard("one two three for"))
    session = LocalAgreement(script, step=1.0)
    first = list(session.push(audio(1.0)))
    assert first == [Partial(" one two free", 0.0)]
    second = list(session.push(audio(1.0)))
    assert said(second) == [" One, two"]
    assert second[1] == Partial(" three four", 2.0)
    third = list(session.push(audio(1.0)))
    assert said(third) == [" three"]
    assert said(list(session.finish())) == [" for"]


def test_nothing_is_decoded_before_a_step_has_come_in_and_late_audio_is_one_step() -> None:
    script = Script(heard("a"), heard("a"))
    session = LocalAgreement(script, step=1.0)
    assert list(session.push(audio(0.9))) == []
    assert script.asked == []
    list(session.push(audio(4.0)))
    assert script.asked == [(pytest.approx(4.9), "")]


def test_what_came_after_the_last_step_is_decoded_at_the_end() -> None:
    script = Script(heard("a"), heard("a b"))
    session = LocalAgreement(script, step=1.0)
    list(session.push(audio(1.0)))
    list(session.push(audio(0.5)))
    assert "".join(said(list(session.finish()))) == " a b"
    assert script.asked[-1][0] == pytest.approx(1.5)
    assert said(list(session.finish())) == []


def test_a_word_whose_time_lies_before_what_is_final_is_still_found_by_its_neighbours() -> None:
    # "not" seemed to last until 5 s, over a pause; now "what" begins at 4.5 s.
    long = Heard((Word(3.0, 5.0, " not", 1.0),), ())
    then = Heard((Word(3.0, 4.2, " not", 1.0), Word(4.5, 5.5, " what", 1.0)), ())
    session = LocalAgreement(Script(long, long, then, then), step=1.0)
    texts = [text for _ in range(4) for text in said(list(session.push(audio(1.0))))]
    assert texts == [" not", " what"]


def test_words_before_what_is_final_are_not_said_again_where_they_came_out_otherwise() -> None:
    session = LocalAgreement(Script(heard("one two"), heard("one two"), heard("won too three"), heard("x")), step=1.0)
    texts = [text for _ in range(3) for text in said(list(session.push(audio(1.0))))]
    assert texts == [" one two"]
    assert said(list(session.finish())) == [" three"]


def test_a_long_buffer_is_cut_at_the_last_final_segment_whose_text_becomes_the_prompt() -> None:
    words = " ".join("abcdefgh")
    script = Script(
        heard(words, each=2.0, ends=[6.0, 10.0, 16.0]),
        heard(words, each=2.0, ends=[6.0, 10.0, 16.0]),
        heard("f g h i", each=2.0),
    )
    session = LocalAgreement(script, step=8.0)
    for _ in range(3):
        list(session.push(audio(8.0)))
    # After 16 s everything is final; the last segment may go on, so that the cut is at 10 s.
    assert script.asked[1:] == [(16.0, ""), (pytest.approx(14.0), " a b c d e")]
    assert said(list(session.finish())) == [" i"]


def test_a_buffer_in_which_nothing_is_ever_final_stays_bounded() -> None:
    script = Script(*(Heard((), ()) for _ in range(120)))
    session = LocalAgreement(script, step=1.0)
    for _ in range(120):
        assert said(list(session.push(audio(1.0)))) == []
    assert max(seconds for seconds, _ in script.asked) <= 21.0


def test_times_are_those_of_the_stream_after_a_cut() -> None:
    script = Script(*(Heard((), ()) for _ in range(22)), heard("late", start=3.0), heard("late", start=2.0))
    session = LocalAgreement(script, step=1.0)
    events = [event for _ in range(24) for event in session.push(audio(1.0))]
    (committed,) = (event for event in events if isinstance(event, Committed))
    behind = 24.0 - script.asked[-1][0]
    assert committed.words[0].start == pytest.approx(behind + 2.0)
