"""Every line is checked before any is used, and each fault is named by the number of its line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.data import lines as lines_module
from sottovoce_compiler.finetune.data.lines import DataError, check_lines
from sottovoce_compiler.finetune.data.records import (
    FORMS,
    ChatLine,
    InstructionLine,
    PromptLine,
    Record,
    SpeechLine,
    TextLine,
)

from .data_case import write_lines

_KEYS = ["messages", "conversations", "instruction", "output", "input", "prompt", "completion", "text", "audio", "file"]
_KEYS += ["role", "content", "tool_calls", "weight", "from", "value", "tools", "start", "end", "task", "system", "name"]
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {"type": "object"}}}


def read(folder: Path, *lines: Any, name: str = "data.jsonl") -> list[Record]:
    return list(check_lines(write_lines(folder / name, lines)))


def fault(folder: Path, line: Any) -> str:
    """The reason for which a line is refused, between two that are sound."""
    file = write_lines(folder / "data.jsonl", [{"text": "sound"}, line, {"text": "sound"}])
    if isinstance(line, dict) and "text" not in line:  # of another kind: alone
        file = write_lines(folder / "data.jsonl", ["", line])
    with pytest.raises(DataError) as raised:
        check_lines(file)
    (found,) = raised.value.faults
    assert found.line == 2 and raised.value.count == 1
    return found.reason


@pytest.mark.parametrize("line", [{"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER], "source": 7, "text": ""}])
def test_messages_are_a_conversation_whatever_stands_beside_them(tmp_path: Path, line: Any) -> None:
    (found,) = read(tmp_path, line)
    assert isinstance(found, ChatLine)
    assert [(one.role, one.content) for one in found.messages] == [("user", "Hi"), ("assistant", "Hello")]
    assert found.answers == (1,)


def test_tools_and_their_results_have_openais_names(tmp_path: Path) -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        ANSWER,
    ]
    (found,) = read(tmp_path, {"messages": messages, "tools": [TOOL]})
    assert isinstance(found, ChatLine)
    assert [tool.name for tool in found.tools] == ["clock"]
    assert found.messages[1].tool_calls[0].name == "clock" and found.messages[2].name == "clock"
    assert found.answers == (1, 3)


def test_an_answer_of_weight_zero_is_not_learned(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]})
    assert isinstance(found, ChatLine) and found.answers == (3,)


def test_an_empty_answer_that_is_not_learned_may_stand(tmp_path: Path) -> None:
    empty = {"role": "assistant", "content": "", "weight": 0}
    (found,) = read(tmp_path, {"messages": [USER, empty, USER, ANSWER]})
    assert isinstance(found, ChatLine) and found.answers == (3,)


def test_sharegpts_turns_are_a_conversation(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    one, other = read(tmp_path, {"conversations": turns}, {"conversations": turns, "system": "Be brief."})
    assert isinstance(one, ChatLine) and isinstance(other, ChatLine)
    assert [message.role for message in one.messages] == ["user", "assistant"]
    assert [message.content for message in other.messages] == ["Be brief.", "Hi", "Hello"]
    assert other.answers == (2,)


def test_instructions_may_lack_an_input(tmp_path: Path) -> None:
    bare = {"instruction": "Add.", "output": "3"}
    found = read(tmp_path, bare, {**bare, "input": None}, {**bare, "input": "1, 2", "text": "x", "system": "Add well."})
    first, second, third = found
    assert first == InstructionLine(1, "Add.", "", "3") and second == InstructionLine(2, "Add.", "", "3")
    assert third == InstructionLine(3, "Add.", "1, 2", "3", "Add well.")


def test_prompts_and_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    assert read(tmp_path, {"prompt": " a", "completion": "b \n"}) == [PromptLine(1, " a", "b \n")]
    assert read(tmp_path, {"text": "\ta\u2028b\n"}) == [TextLine(1, "\ta\u2028b\n")]


@pytest.mark.parametrize("key", ["audio", "file"])
def test_recordings_are_looked_for_beside_the_data(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    line = {key: "a.wav", "text": "said", "language": "EN", "seconds": 3, "kind": "speech", "start": 1, "end": 2.5}
    (found,) = read(tmp_path, line)
    assert found == SpeechLine(1, tmp_path / "a.wav", "a.wav", "said", "en", "transcribe", 1.0, 2.5)


BAD_LINES: list[tuple[str, Any, str]] = [
    ("not JSON", "{'text': 'a'}", "is not JSON (Expecting property name"),
    ("cut off", '{"text": "a', "is not JSON (Unterminated string"),
    ("two objects", '{"text": "a"} {"text": "b"}', "is not JSON (Extra data"),
    ("not a number", '{"text": "a", "x": NaN}', "NaN is not a JSON value"),
    ("nested without end", "[" * 100_000, "is not JSON"),
    ("a string", '"a"', "is a JSON string; an object is needed"),
    ("a list", "[1]", "is a JSON list"),
    ("null", "null", "is a JSON null"),
    ("a mark in the middle", '\ufeff{"text": "a"}', "begins with a byte order mark"),
    ("no known key", {"question": "a", "answer": "b"}, "its keys ('question', 'answer') are of no kind of data"),
    ("no key", "{}", "its keys (none)"),
    ("text of another type", {"text": 3}, "text: 3 is not text"),
    ("text that is null", {"text": None}, "text: is missing"),
    ("text that is empty", {"text": " \n"}, "text: is empty"),
    ("half a pair", '{"text": "a\\ud800"}', "text: character 1 is half of a surrogate pair"),
    ("no messages", {"messages": []}, "messages: the list is empty"),
    ("messages of another type", {"messages": "Hi"}, "messages: 'Hi' is not a list"),
    ("a message of another type", {"messages": ["Hi"]}, "messages[0]: 'Hi' is not a message"),
    ("a message without a role", {"messages": [{"content": "a"}, ANSWER]}, "messages[0]: has no role"),
    ("an unknown role", {"messages": [{"role": "bot", "content": "a"}]}, "messages[0]: role 'bot' is unknown"),
    ("no content", {"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content: is missing"),
    ("no answer", {"messages": [USER]}, "no message is the assistant's"),
    (
        "an empty answer",
        {"messages": [USER, {**ANSWER, "content": " "}]},
        "messages[1]: the assistant's answer is empty",
    ),
    ("no answer to learn", {"messages": [USER, {**ANSWER, "weight": 0}]}, "every answer has weight 0"),
    ("a strange weight", {"messages": [USER, {**ANSWER, "weight": 0.5}]}, "messages[1].weight: 0.5"),
    ("a weight that is a word", {"messages": [USER, {**ANSWER, "weight": "0"}]}, "messages[1].weight: '0'"),
    (
        "a result without a call",
        {"messages": [USER, {"role": "tool", "tool_call_id": "x", "content": ""}, ANSWER]},
        "'x'",
    ),
    ("tools of another type", {"messages": [USER, ANSWER], "tools": "clock"}, "tools: 'clock' is not a list"),
    ("a tool without a name", {"messages": [USER, ANSWER], "tools": [{}]}, "tools[0]"),
    ("turns of another type", {"conversations": 3}, "conversations: 3 is not a list of turns"),
    ("a turn of another type", {"conversations": [3]}, "conversations[0]: 3 is not"),
    ("an unknown speaker", {"conversations": [{"from": "x", "value": "a"}]}, "conversations[0].from: 'x' is unknown"),
    ("a speaker of another type", {"conversations": [{"from": [], "value": "a"}]}, "conversations[0].from: []"),
    ("an instruction alone", {"instruction": "Add."}, "output: is missing"),
    ("an empty output", {"instruction": "Add.", "output": ""}, "output: is empty"),
    ("an empty instruction", {"instruction": "", "output": "3"}, "instruction: is empty"),
    ("an input of another type", {"instruction": "Add.", "input": [1], "output": "3"}, "input: [1] is not text"),
    ("a prompt alone", {"prompt": "a"}, "completion: is missing"),
    ("a completion alone", {"completion": "a"}, "prompt: is missing"),
    ("an empty completion", {"prompt": "a", "completion": ""}, "completion: is empty"),
    ("a prompt of messages", {"prompt": [USER], "completion": [ANSWER]}, "prompt: [{'role'"),
]


@pytest.mark.parametrize(("line", "reason"), [case[1:] for case in BAD_LINES], ids=[case[0] for case in BAD_LINES])
def test_a_line_that_is_not_what_it_says_is_refused(tmp_path: Path, line: Any, reason: str) -> None:
    assert reason in fault(tmp_path, line)


BAD_SPEECH: list[tuple[str, dict[str, Any], str]] = [
    ("a file that is not there", {"audio": "b.wav", "text": "a"}, "audio: 'b.wav' is not there"),
    ("a folder", {"file": ".", "text": "a"}, "file: '.' is not there"),
    ("a name that no file has", {"audio": "a\0.wav", "text": "a"}, "is not there"),
    ("a name that is too long", {"audio": "a" * 5000, "text": "a"}, "is not there"),
    ("no text", {"audio": "a.wav"}, "text: is missing"),
    ("empty text", {"audio": "a.wav", "text": ""}, "text: is empty"),
    ("absurd text", {"audio": "a.wav", "text": "a" * 5001}, "5001 characters for one recording"),
    ("an unknown task", {"audio": "a.wav", "text": "a", "task": "sing"}, "task: 'sing'"),
    ("a task of another type", {"audio": "a.wav", "text": "a", "task": ["x"]}, "task: ['x']"),
    ("a language of another type", {"audio": "a.wav", "text": "a", "language": 3}, "language: 3 is not text"),
    ("a start of another type", {"audio": "a.wav", "text": "a", "start": "0"}, "start: '0'"),
    ("a negative start", {"audio": "a.wav", "text": "a", "start": -1}, "start: -1"),
    ("an end before the start", {"audio": "a.wav", "text": "a", "start": 2, "end": 2}, "end: 2.0 s is not after"),
]


@pytest.mark.parametrize(("line", "reason"), [case[1:] for case in BAD_SPEECH], ids=[case[0] for case in BAD_SPEECH])
def test_a_recording_that_cannot_be_used_is_refused(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(DataError) as raised:
        check_lines(write_lines(tmp_path / "data.jsonl", [{"audio": "a.wav", "text": "a"}, line]))
    (found,) = raised.value.faults
    assert found.line == 2 and reason in found.reason


def test_bytes_that_are_not_utf8_are_named_by_line_and_byte(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(DataError, match=r"line 2: is not UTF-8 \(byte 10\)"):
        check_lines(file)


def test_a_line_of_absurd_length_is_refused_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE", 100)
    long = [{"text": "x" * size} for size in (89, 90, 350, 1000)]  # the first has 101 bytes
    with pytest.raises(DataError) as raised:
        check_lines(write_lines(tmp_path / "data.jsonl", [*long, "nonsense"]))
    assert [found.line for found in raised.value.faults] == [1, 2, 3, 4, 5]
    assert "is longer than 100 bytes" in raised.value.faults[0].reason


def test_a_line_as_long_as_is_allowed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE", 100)
    assert len(read(tmp_path, {"text": "x" * 88}, {"text": "y"})) == 2


def test_all_faults_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data.jsonl", [{"text": "a"}, *["{"] * 25])
    with pytest.raises(
        DataError, match=r"^data.jsonl: 25 of 26 lines cannot be used \(10 shown\):\n  line 2: "
    ) as raised:
        check_lines(file)
    assert raised.value.count == 25
    assert str(raised.value).count("\n") == 10
    assert raised.value.exit_code == 2


def test_lines_of_another_kind_than_the_first_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: is instruction data, line 1 is text; a file holds one kind"):
        read(tmp_path, {"text": "a"}, "", {"instruction": "a", "output": "b"})


def test_a_kind_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data.jsonl", ["", {"text": "a"}])
    with pytest.raises(InputError, match="line 2 is text data; this model takes speech"):
        check_lines(file, ("speech",))


def test_empty_lines_are_skipped_and_keep_their_numbers(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data.jsonl", ["", {"text": "a"}, "  ", {"text": "b"}, ""])
    found = check_lines(file)
    assert (found.count, found.blank, found.kind) == (2, 3, "text")
    assert [one.line for one in found] == [2, 4]


def test_line_ends_of_windows_and_a_missing_last_one_are_read(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "a"}\r\n\r\n{"text": "b"}')
    assert list(check_lines(file)) == [TextLine(1, "a"), TextLine(3, "b")]


def test_a_byte_order_mark_may_begin_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert list(check_lines(file)) == [TextLine(1, "a")]
    file.write_bytes(b'\xef\xbb\xbf\xef\xbb\xbf{"text": "a"}\n')
    with pytest.raises(DataError, match="line 1: begins with a byte order mark"):
        check_lines(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"PAR1\x15", "Parquet"),
        (b'[\n{"text": "a"},\n{"text": "b"}]\n', "is a JSON list"),
        (b' [{"text": "a"}]', "JSON list"),
        (b"", "has no lines"),
        (b"\n \n", "has no lines"),
    ],
)
def test_a_file_of_another_format_is_said_to_be_one(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=what):
        check_lines(file)


def test_a_file_that_is_not_there_and_one_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.jsonl: No such file"):
        check_lines(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is no regular file"):
        check_lines(tmp_path)


@pytest.mark.parametrize("after", [[{"text": "a"}, "{"], [{"instruction": "a", "output": "b"}]])
def test_a_file_that_changes_after_it_was_checked_is_noticed(tmp_path: Path, after: Sequence[Any]) -> None:
    file = write_lines(tmp_path / "data.jsonl", [{"text": "a"}])
    found = check_lines(file)
    write_lines(file, after)
    with pytest.raises(InputError, match=f"line {len(after)} changed while it was read"):
        list(found)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), inner),
    max_leaves=12,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=4) | _JSON)
def test_whatever_json_a_line_holds_it_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    try:
        assert len(read(tmp_path, json.dumps(value))) == 1
    except DataError as error:
        assert error.count == 1
    except InputError as error:
        assert "is a JSON list" in str(error)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_whatever_bytes_a_file_holds_they_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError):  # that chance writes an object of a known kind is not to be feared
        check_lines(file)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.key)
def test_every_form_has_an_example_of_its_kind(form: Any) -> None:
    fields = json.loads(form.example.replace(", ...]", "]"))
    assert form.key in fields
    assert next(other for other in FORMS if other.key in fields).kind == form.kind
