"""Events as lines, as words, as JSON, and which of them suits where they go."""

import io
import json
from typing import Any

import pytest
from tests.runtime.cli.live_case import SPEECH, committed

from sottovoce.cli.captions import JsonLines, Lines, WordLines, open_captions, play
from sottovoce.cli.screen import Screen
from sottovoce.errors import AudioError
from sottovoce.streaming.events import AudioDropped, Committed, SpeechEnded, SpeechStarted


class Pipe(io.StringIO):
    """Remembers what had been written whenever it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


def test_a_pipe_gets_settled_text_at_once_and_a_line_for_each_utterance() -> None:
    out = Pipe()
    captions = Lines(out, io.StringIO())
    play(SPEECH, captions)
    captions.close()
    assert out.getvalue() == "Ask not what.\nAsk why.\n"
    assert list(dict.fromkeys(out.flushed)) == ["", "Ask not", "Ask not what.", "Ask not what.\n", *out.flushed[-3:-1]]


def test_an_utterance_that_was_not_finished_gets_its_line_break_in_the_end() -> None:
    out = io.StringIO()
    captions = Lines(out, io.StringIO())
    play(SPEECH[:3], captions)
    captions.close()
    captions.close()
    assert out.getvalue() == "Ask not\n"


def test_line_breaks_inside_text_do_not_become_lines() -> None:
    out = io.StringIO()
    Lines(out, io.StringIO()).event(Committed(" a\nb", (), "en"))
    assert out.getvalue() == "a b"


def test_an_utterance_without_text_is_no_line() -> None:
    out = io.StringIO()
    play([SpeechStarted(0.0), SpeechEnded(1.0)], Lines(out, io.StringIO()))
    assert out.getvalue() == ""


def test_words_come_one_a_line_with_their_times() -> None:
    out = io.StringIO()
    play(SPEECH, WordLines(out, io.StringIO()))
    assert out.getvalue().splitlines()[:2] == ["0.50\t0.90\tAsk", "1.00\t1.40\tnot"]
    assert len(out.getvalue().splitlines()) == 5


def test_json_lines_hold_every_event_with_its_fields() -> None:
    out = io.StringIO()
    play([*SPEECH, AudioDropped(4.0, 4.1 + 0.2)], JsonLines(out, io.StringIO()))
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert found[0] == {"event": "speech_started", "time": 0.3}
    assert found[1] == {"event": "partial", "text": " Ask nut", "start": 0.3}
    assert found[2]["words"][1] == {"start": 1.0, "end": 1.4, "word": " not", "probability": 0.9}
    assert found[2]["event"] == "committed" and found[2]["language"] == "en"
    assert found[-1] == {"event": "audio_dropped", "start": 4.0, "end": 4.3}
    assert len(found) == len(SPEECH) + 1


def test_audio_that_was_dropped_piece_by_piece_is_told_once() -> None:
    out, err = io.StringIO(), io.StringIO()
    lost = [AudioDropped(60.0, 61.0), AudioDropped(61.0, 62.5), AudioDropped(70.0, 70.5)]
    play([committed("one"), *lost, committed("two")], Lines(out, err))
    assert err.getvalue() == (
        "sottovoce: 2.5 s of audio were lost at 1:00\nsottovoce: 0.5 s of audio were lost at 1:10\n"
    )
    assert out.getvalue() == "one two"


def test_audio_dropped_last_is_told_even_when_the_stream_breaks_off() -> None:
    def breaking() -> Any:
        yield AudioDropped(1.0, 2.0)
        raise AudioError("gone")

    err = io.StringIO()
    with pytest.raises(AudioError):
        play(breaking(), Lines(io.StringIO(), err))
    assert err.getvalue() == "sottovoce: 1.0 s of audio were lost at 0:01\n"


def test_what_suits_stdout_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(open_captions(), Lines)
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_captions(), Screen)
    assert isinstance(open_captions(words=True), WordLines)
    assert isinstance(open_captions(as_json=True), JsonLines)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_captions(), Lines)


def test_a_stream_that_never_speaks_says_so() -> None:
    out, err = io.StringIO(), io.StringIO()
    play([SpeechStarted(1.0), SpeechEnded(1.5)], Lines(out, err))
    assert out.getvalue() == "" and "no speech" in err.getvalue()
