"""A conversation at the command line, typed by a test: messages, commands, Ctrl-C, errors that end nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.cli.talk_case import FakeChat, last

from sottovoce.chat.types import Delta
from sottovoce.cli.chat_commands import COMMANDS
from sottovoce.cli.chat_conversation import Conversation
from sottovoce.cli.chat_loop import converse
from sottovoce.errors import EngineError, IncompleteOutputError, InputError


class Typed:
    """Lines, and exceptions in place of lines; then the end of input."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines: Iterator[str | BaseException] = iter(lines)

    def read(self) -> str:
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    def close(self) -> None:
        """Nothing is kept."""


class Heard:
    """A view that notes the text, with a bar at the end of each answer."""

    def __init__(self) -> None:
        self.text = ""

    def delta(self, delta: Delta) -> None:
        self.text += delta.text

    def end(self) -> None:
        self.text += "|"


class Talk:
    """One conversation with a fake chat; what was shown, said and noticed."""

    def __init__(self) -> None:
        class Fake(FakeChat):
            made: list[FakeChat] = []  # noqa: RUF012

        self.fake: Any = Fake
        self.chat = Fake("b.svb")
        self.conversation = Conversation(self.chat, {})  # type: ignore[arg-type]
        self.view, self.said, self.noticed = Heard(), list[str](), list[str]()

    def type(self, *lines: str | BaseException) -> "Talk":
        converse(self.conversation, Typed(*lines), self.view, self.said.append, self.noticed.append)
        self.said = [line for line in self.said if line]  # the end of input ends a line
        return self

    @property
    def contents(self) -> list[Any]:
        return [message["content"] for message in self.conversation.messages]


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_each_message_is_answered_with_all_that_was_said_before(talk: Talk) -> None:
    talk.type("abc", "", "   ", "def")
    assert talk.view.text == "[u] cba!|[uau] fed!|"
    assert talk.contents == ["abc", "[u] cba!", "def", "[uau] fed!"] and talk.noticed == []


def test_ctrl_c_stops_an_answer_and_what_was_said_is_the_answer(talk: Talk) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted(messages: Any) -> Iterator[Delta]:
        yield Delta("once ")
        os.kill(os.getpid(), signal.SIGINT)
        yield Delta("upon")

    talk.fake.script = interrupted
    talk.type("tell")
    assert talk.contents == ["tell", "once "] and talk.view.text == "once |" and talk.noticed == ["stopped"]
    assert signal.getsignal(signal.SIGINT) is before
    talk.fake.script = FakeChat.script
    assert talk.type("go on").view.text.endswith("[uau] no og!|")


def test_impatient_ctrl_c_changes_nothing_more(talk: Talk) -> None:
    def interrupted(messages: Any) -> Iterator[Delta]:
        try:
            yield Delta("once ")
            os.kill(os.getpid(), signal.SIGINT)
            yield Delta("upon")
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    talk.fake.script = interrupted
    assert talk.type("tell").contents == ["tell", "once "]


def test_a_message_that_was_stopped_before_an_answer_began_is_taken_back(talk: Talk) -> None:
    def interrupted(messages: Any) -> Iterator[Delta]:
        os.kill(os.getpid(), signal.SIGINT)
        yield Delta("never")

    talk.fake.script = interrupted
    assert talk.type("tell").contents == []
    assert "taken back" in talk.noticed[0]


def test_ctrl_c_twice_at_the_prompt_ends_the_chat_and_once_does_not(talk: Talk) -> None:
    talk.type(KeyboardInterrupt(), "abc", KeyboardInterrupt(), KeyboardInterrupt(), "never read")
    assert talk.contents[0] == "abc" and len(talk.contents) == 2
    assert len(talk.noticed) == 2 and "Ctrl-C again" in talk.noticed[0]


@pytest.mark.parametrize("error", [EngineError("it broke off"), InputError("too long"), OSError(5, "I/O error")])
def test_an_error_is_said_and_the_conversation_goes_on_as_it_was(error: Exception, talk: Talk) -> None:
    talk.type("abc")
    talk.chat.error = error
    talk.type("lost")
    talk.chat.error = None
    talk.type("refused", "def")
    assert talk.contents == ["abc", "[u] cba!", "def", "[uau] fed!"]
    assert talk.noticed[0].startswith("error: ") and talk.noticed[1] == "error: the message is refused"


def test_an_answer_that_had_to_be_whole_is_kept_as_far_as_it_came(talk: Talk) -> None:
    talk.fake.script = lambda messages: [Delta('{"a')]
    talk.chat.error = IncompleteOutputError("cut off", '{"a":')
    talk.type("abc")
    assert talk.contents == ["abc", '{"a":'] and talk.view.text == '{"a":|' and talk.noticed == ["error: cut off"]


def test_what_is_no_text_is_said_and_ends_nothing(talk: Talk) -> None:
    talk.type(InputError("that was no utf-8 text"), "abc")
    assert talk.noticed == ["error: that was no utf-8 text"] and talk.contents[0] == "abc"


def test_messages_that_were_left_out_are_told_of_once_until_there_are_more(talk: Talk) -> None:
    counts = iter([0, 2, 2, 3])
    talk.fake.script = lambda messages: [last("so", dropped_messages=next(counts))]
    talk.type("a", "b", "c", "d")
    assert [line for line in talk.noticed if "oldest" in line] == [
        "the context is full: the model no longer sees the 2 oldest messages",
        "the context is full: the model no longer sees the 3 oldest messages",
    ]


def test_an_answer_that_reached_its_limit_says_so(talk: Talk) -> None:
    talk.fake.script = lambda messages: [last("so", "length")]
    assert "max_tokens" in talk.type("a").noticed[0]


class TestCommands:
    """What begins with a slash."""

    def test_help_lists_every_command(self, talk: Talk) -> None:
        talk.type("/help")
        assert all(any(line.startswith(f"  {name} ") for line in talk.said) for name in COMMANDS)

    def test_quit_ends_and_nothing_after_it_is_read(self, talk: Talk) -> None:
        assert talk.type("/quit", "abc").contents == []

    @pytest.mark.parametrize(
        ("line", "said"), [("/hlep", "did you mean /help?"), ("/etc/passwd is a file", "written with //")]
    )
    def test_an_unknown_command_names_the_closest_and_is_not_sent(self, line: str, said: str, talk: Talk) -> None:
        talk.type(line)
        assert said in talk.noticed[0] and talk.chat.asked == []

    def test_two_slashes_begin_a_message_with_one(self, talk: Talk) -> None:
        assert talk.type("//etc is a folder").contents[0] == "/etc is a folder"

    def test_the_system_message_is_set_shown_changed_and_removed(self, talk: Talk) -> None:
        talk.type("abc", "/system Be brief.", "/system", "def", "/system Be long.", "/system off")
        assert [message["role"] for message in talk.chat.asked[1][0]] == ["system", "user", "assistant", "user"]
        assert talk.said[:4] == ["system: Be brief.", "system: Be brief.", "system: Be long.", "no system message"]
        assert talk.contents[0] == "abc"

    def test_clear_keeps_the_system_message_alone(self, talk: Talk) -> None:
        assert talk.type("/system Be brief.", "abc", "/clear").contents == ["Be brief."]

    def test_retry_asks_the_last_message_again_in_place_of_its_answer(self, talk: Talk) -> None:
        talk.type("/retry")
        assert talk.noticed == ["error: nothing was asked yet"]
        talk.type("abc", "def")
        talk.fake.script = lambda messages: [last("another")]
        assert talk.type("/retry").contents == ["abc", "[u] cba!", "def", "another"]

    def test_a_retry_that_fails_leaves_the_answer_that_was_there(self, talk: Talk) -> None:
        talk.type("abc")
        talk.chat.error = EngineError("it broke off")
        assert talk.type("/retry").contents == ["abc", "[u] cba!"]

    def test_options_are_set_shown_and_set_back(self, talk: Talk) -> None:
        talk.type("/set temperature=0.2", "/set stop = 12", "abc", "/set temperature=", "def", "/set")
        assert talk.chat.asked[0][1] == {"response_format": None, "temperature": 0.2, "stop": "12"}
        assert talk.chat.asked[1][1] == {"response_format": None, "stop": "12"}
        assert talk.said[-2] == "set: stop=12" and "top_p" in talk.said[-1]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("/set temprature=1", "did you mean 'temperature'?"),
            ("/set temperature=9", "0 to 2 is possible"),
            ("/set seed=soon", "seed = 'soon'"),
            ("/set temperature", "NAME=VALUE is needed"),
        ],
    )
    def test_an_option_that_is_not_possible_is_refused_and_nothing_changes(
        self, line: str, said: str, talk: Talk
    ) -> None:
        talk.type("/set temperature=0.5", line)
        assert said in talk.noticed[0] and talk.conversation.options == {"temperature": 0.5}

    def test_a_conversation_is_saved_and_loaded(self, talk: Talk, tmp_path: Path) -> None:
        path = tmp_path / "a talk"
        talk.type(f"/save {path}", "abc", f"/save {path}", f"/load {path}")
        assert "nothing to save" in talk.noticed[0] and talk.contents == ["before", "yes"]
        talk.type(f"/load {tmp_path}/gone", "/save", "def")
        assert "cannot be read" in talk.noticed[1] and "/save needs the name of a file" in talk.noticed[2]
        assert talk.contents == ["before", "yes", "def", "[uau] fed!"]

    def test_an_adapter_takes_the_place_of_another_and_a_wrong_one_does_not(self, talk: Talk) -> None:
        talk.type("/adapter", "/adapter a.gguf", "/adapter wrong.gguf", "/adapter", "/adapter off")
        assert talk.said == ["no adapter", "adapter: a.gguf", "adapter: a.gguf", "no adapter"]
        attached = ("attach", "a.gguf")
        assert talk.chat.log == ["detach", attached, "detach", attached, "detach"]
        assert "another model" in talk.noticed[0]

    def test_stats_tell_of_the_last_answer_and_the_room(self, talk: Talk) -> None:
        talk.type("/stats", "abc", "/stats")
        assert talk.said[0] == "conversation: 0 tokens, with room for 100"
        assert talk.said[1].startswith("answer: 3 tokens, ") and "tokens/s" in talk.said[1]
        assert talk.said[2:4] == [
            "prompt: 12 tokens, 4 of them known from before",
            "conversation: 20 tokens, with room for 100",
        ]
