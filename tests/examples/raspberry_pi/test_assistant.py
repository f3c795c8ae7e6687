"""The assistant in a room: it answers what it is asked, does not hear itself, and falls silent when it is told to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import assistant
import numpy as np
import pytest
from assistant import REMEMBERED, WAITING, Assistant
from chat_bundle_case import chat_fields, make_chat_bundle
from hearing import Ear
from tests.examples.raspberry_pi.room_case import EXAMPLE, RATE, Loudspeaker, Parrot, Room, Samples

import sottovoce
from sottovoce.audio import load_audio
from sottovoce.bundle import open_bundle
from sottovoce.errors import EngineError
from sottovoce.streaming.drive import drive
from sottovoce.streaming.events import Committed, Event, SpeechEnded
from sottovoce_compiler.pack import write_bundle

ANSWER = "It is a quarter past nine. Ask me again later."
SENTENCES = ["It is a quarter past nine.", "Ask me again later."]
SILENT: Samples = np.zeros(RATE, np.float32)


def answering_bundle(folder: Path) -> Path:
    """A tiny random model that was made to answer, whatever it answers."""
    draft = open_bundle(make_chat_bundle(folder / "draft.svb"))
    files: dict[str, bytes | Path] = {name: draft.read(name) for name in draft.manifest.files}
    files["chat_template.jinja"] = b"{% for message in messages %}{{ message.content }}\n{% endfor %}"
    return write_bundle(folder / "nano.svb", chat_fields(), files)


def say(*texts: str) -> Iterator[Event]:
    """Complete utterances."""
    for text in texts:
        yield Committed(f" {text}", (), "en")
        yield SpeechEnded(1.0)


def talk_to(parrot: Parrot, *texts: str, clock: Callable[[], float] = lambda: 0.0, **options: Any) -> list[str]:
    """What the assistant says to utterances that come one after the other, each once it is silent again."""
    room = Room([600.0])
    speaker = Instant(room, SILENT)
    ear = Ear(room)
    assistant = Assistant(parrot, speaker, ear, **options)

    def events() -> Iterator[Event]:
        for text in texts:
            yield from say(text)
            if assistant._answering is not None:
                assistant._answering.join(30)

    assistant.listen(events(), clock)
    return room.said


class Instant(Loudspeaker):
    """Nobody waits for it."""

    def say(self, text: str) -> None:
        self.room.said.append(text)


def questions(parrot: Parrot) -> list[str]:
    return [str(asked[-1]["content"]) for asked in parrot.asked]


@pytest.mark.weights
class TestInARoom:
    """Real speech, heard by a real bundle; the loudspeaker plays a recording of somebody into the same room."""

    def run(
        self, script: Callable[[Assistant, Room], list[Any]], bundle: Path, echo: Samples, may_interrupt: bool
    ) -> tuple[Parrot, Room]:
        parrot = Parrot([ANSWER, "Well then.", "Well then.", "Well then."])
        parts: list[Any] = []
        room = Room(parts)
        ear = Ear(room)
        made = Assistant(parrot, Loudspeaker(room, echo), ear, may_interrupt=may_interrupt)
        parts += script(made, room)
        with sottovoce.Transcriber(bundle, threads=1) as transcriber:
            session = transcriber.session(partials=may_interrupt)
            made.listen(drive(session, ear), lambda: session.time)
        return parrot, room

    def asks_once(self, talk: Path) -> Callable[[Assistant, Room], list[Any]]:
        def script(made: Assistant, room: Room) -> list[Any]:
            return [load_audio(talk), 1.5, lambda: bool(room.said), lambda: not made._is_speaking(), 2.0]

        return script

    def test_it_answers_what_it_is_asked_and_does_not_hear_itself(
        self, tiny_bundle: Path, talk: Path, other: Path
    ) -> None:
        parrot, room = self.run(self.asks_once(talk), tiny_bundle, load_audio(other), may_interrupt=False)
        assert len(parrot.asked) == 1 and "heaven" in questions(parrot)[0]
        assert room.said == SENTENCES

    def test_with_its_ear_open_it_would_hear_itself(self, tiny_bundle: Path, talk: Path, other: Path) -> None:
        parrot, room = self.run(self.asks_once(talk), tiny_bundle, load_audio(other), may_interrupt=True)
        assert len(parrot.asked) > 1 or room.said != SENTENCES

    def test_somebody_who_speaks_interrupts_it_and_is_answered(self, tiny_bundle: Path, talk: Path) -> None:
        def script(made: Assistant, room: Room) -> list[Any]:
            asks = load_audio(talk)
            return [asks, 1.5, lambda: bool(room.said), 0.5, asks, 1.5, lambda: "Well then." in room.said, 2.0]

        # A microphone that cancels echo hears nothing of the loudspeaker, which would go on for a minute.
        parrot, room = self.run(script, tiny_bundle, np.zeros(60 * RATE, np.float32), may_interrupt=True)
        assert room.said[0] == SENTENCES[0] and SENTENCES[1] not in room.said
        assert len(parrot.asked) == 2 and "heaven" in questions(parrot)[1]
        assert parrot.closed == 2

    def test_the_script_hears_thinks_and_speaks(self, tiny_bundle: Path, talk: Path, tmp_path: Path) -> None:
        chat = answering_bundle(tmp_path)
        espeak = tmp_path / "espeak-ng"
        espeak.write_text(f'#!/bin/sh\ncat >> "{tmp_path}/said"\n')
        espeak.chmod(0o755)
        command = [sys.executable, EXAMPLE / "assistant.py", tiny_bundle, chat, "-", "--wake", ""]
        environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        with talk.open("rb") as wav:
            done = subprocess.run(
                command, stdin=wav, capture_output=True, text=True, env=environment, timeout=120, check=False
            )
        assert (done.returncode, done.stderr) == (0, "")
        listening, asked, *answered = done.stdout.splitlines()
        assert listening == "listening" and asked.startswith("> ") and "heaven" in asked
        assert (tmp_path / "said").exists() == bool(answered)


def test_nobody_is_answered_who_did_not_call() -> None:
    parrot = Parrot([ANSWER])
    assert talk_to(parrot, "What time is it?", wake="computer") == [] and not parrot.asked


@pytest.mark.parametrize(
    "text", ["Computer, what time is it?", "Hey computer what time is it?", "COMPUTER! What time is it?"]
)
def test_what_follows_the_wake_word_is_asked(text: str) -> None:
    parrot = Parrot([ANSWER])
    assert talk_to(parrot, text, wake="Computer") == SENTENCES
    assert questions(parrot)[0].lower() == "what time is it?"


@pytest.mark.parametrize(("later", "asked"), [(WAITING - 1, ["What time is it?"]), (WAITING + 1, [])])
def test_the_question_may_come_a_moment_after_the_wake_word(later: float, asked: list[str]) -> None:
    parrot, times = Parrot([ANSWER]), iter([10.0, 10.0 + later])
    talk_to(parrot, "Computer.", "What time is it?", wake="computer", clock=lambda: next(times))
    assert questions(parrot) == asked


def test_told_to_stop_it_does_and_asks_nobody_why() -> None:
    parrot = Parrot([ANSWER])
    assert talk_to(parrot, "Stop!", "Computer, stop.", wake="computer") == []
    assert talk_to(parrot, "Be quiet.") == [] and not parrot.asked


def test_it_remembers_what_was_said_up_to_a_point() -> None:
    parrot = Parrot([f"Answer {i}." for i in range(10)])
    talk_to(parrot, *(f"Question {i}?" for i in range(10)))
    first, second, last = parrot.asked[0], parrot.asked[1], parrot.asked[-1]
    assert [one["role"] for one in first] == ["system", "user"]
    assert [one["content"] for one in second[1:]] == ["Question 0?", "Answer 0.", "Question 1?"]
    assert len(last) == 1 + REMEMBERED and last[-1]["content"] == "Question 9?"


def test_a_model_that_fails_is_told_and_the_next_question_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(Parrot):
        def stream(self, messages: Any, **options: Any) -> Any:
            if not self.asked:
                self.asked.append(messages)
                raise EngineError("memory is short")
            return super().stream(messages, **options)

    assert talk_to(Failing([ANSWER]), "Well?", "Well?") == SENTENCES
    assert capsys.readouterr().err == "memory is short\n"


def test_a_word_said_while_it_thinks_does_not_let_two_answers_run_at_once() -> None:
    parrot, room = Parrot([ANSWER] * 5), Room([600.0])
    made = Assistant(parrot, Instant(room, SILENT), Ear(room))
    made.listen(say("One?", "Two?", "Three?"), lambda: 0.0)
    assert parrot.closed == len(parrot.asked) and room.said[-2:] == SENTENCES


def test_plain_text_is_words_in_lower_case() -> None:
    assert assistant.plain(" It's  Noon, John! ") == "it's noon john"
