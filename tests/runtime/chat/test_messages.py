from typing import Any

import pytest

from sottovoce.chat.messages import MAX_CHARACTERS, MAX_MESSAGES, read_messages
from sottovoce.chat.types import Completion, ToolCall, Usage
from sottovoce.errors import InputError

USER = {"role": "user", "content": "hi"}


def calling(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def result(content: Any, id: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id}


def test_plain_messages_are_taken_as_they_are() -> None:
    given = [{"role": "system", "content": "be brief"}, USER, {"role": "assistant", "content": ""}]
    assert [message.for_template() for message in read_messages(given)] == given


def test_a_developer_is_the_system() -> None:
    assert read_messages([{"role": "developer", "content": "x"}])[0].role == "system"


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "\nb"}]
    assert read_messages([{"role": "user", "content": parts}])[0].content == "a\nb"


def test_a_call_without_content_has_empty_text_and_arguments_as_an_object() -> None:
    message = read_messages([USER, calling('{"zone": "utc", "n": [1, {"a": null}]}')])[1].for_template()
    assert message["content"] == ""
    assert message["tool_calls"] == [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "clock", "arguments": {"zone": "utc", "n": [1, {"a": None}]}},
        }
    ]


@pytest.mark.parametrize(("arguments", "read"), [({"a": 1}, {"a": 1}), ("", {}), (None, {}), (" {} ", {})])
def test_arguments_may_be_an_object_or_nothing(arguments: Any, read: Any) -> None:
    assert dict(read_messages([calling(arguments)])[0].tool_calls[0].arguments) == read


def test_a_tools_message_gets_the_name_of_the_tool() -> None:
    result = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
    message = read_messages([USER, calling("{}"), result])[2]
    assert message.for_template() == {**result, "name": "clock"}


def test_an_answer_of_ours_can_be_given_back() -> None:
    usage = Usage(1, 1)
    ours = Completion("", "", (ToolCall("call00000", "clock", '{"a": 1}'),), "tool_calls", usage).message()
    read = read_messages([USER, ours, {"role": "tool", "tool_call_id": "call00000", "content": "x"}])
    assert dict(read[1].tool_calls[0].arguments) == {"a": 1}


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_passed_under_the_names_that_templates_read(key: str) -> None:
    message = read_messages([{"role": "assistant", "content": "4", key: "two and two"}])[0].for_template()
    assert message["reasoning_content"] == message["thinking"] == "two and two"


def test_what_is_given_is_not_changed_and_not_shared() -> None:
    arguments = {"a": [1]}
    message = read_messages([calling(arguments)])[0]
    message.for_template()["tool_calls"][0]["function"]["arguments"]["a"].append(2)
    assert arguments == {"a": [1]}
    assert message.for_template()["tool_calls"][0]["function"]["arguments"] == {"a": [1]}
    with pytest.raises(AttributeError):
        message.content = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ("hello", "messages: 'hello' is not a list"),
        (USER, "messages: .* is not a list"),
        ([], "messages: the list is empty"),
        (["hello"], r"messages\[0\]: 'hello' is not a message"),
        ([USER, {"content": "x"}], r"messages\[1\]: has no role; one of system, developer, user, assistant, tool"),
        ([{"role": "robot", "content": "x"}], r"messages\[0\]: role 'robot' is unknown"),
        ([{"role": ["user"], "content": "x"}], r"role \['user'\] is unknown"),
        ([{"role": "user"}], r"messages\[0\]\.content: is missing"),
        ([{"role": "user", "content": None}], r"messages\[0\]\.content: is missing; a string is needed"),
        ([{"role": "assistant", "content": None}], r"messages\[0\]\.content: is missing"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], r"content: is missing"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content: 3 is not text"),
        ([{"role": "user", "content": b"x"}], r"content: b'x' is not text"),
        ([{"role": "user", "content": {"text": "x"}}], "content: .* is not text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            r"content\[0\]: a part of type 'image_url'",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]\.text: is missing"),
        ([{"role": "user", "content": ["x"]}], r"content\[0\]: 'x' is not"),
        ([{"role": "user", "content": "a\ud800b"}], r"content: character 1 is half of a surrogate pair \(U\+D800\)"),
        ([{**USER, "name": 3}], r"messages\[0\]\.name: 3 is not text"),
        ([{**USER, "tool_calls": [{}]}], "only an assistant's message has calls"),
        ([{"role": "assistant", "content": "", "tool_calls": {}}], r"tool_calls: \{\} is not a list"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}], r'tool_calls\[0\]: \{\} has no "function"'),
        ([calling("[1]")], r"tool_calls\[0\]\.function\.arguments: '\[1\]' is not a JSON object"),
        ([calling("{")], "is not JSON"),
        ([calling('{"a": NaN}')], "NaN is not a JSON value"),
        ([calling({"a": object()})], "is not JSON"),
        ([calling('{"a":' * 100_000)], "is not JSON"),
        ([{"role": "assistant", "content": "x", "function_call": {"name": "f"}}], "'function_call' is not supported"),
        ([{"role": "tool", "content": "x"}], r"messages\[0\]\.tool_call_id: is missing"),
        (
            [calling("{}"), {"role": "tool", "content": "x", "tool_call_id": "c2"}],
            r"no earlier message has a call 'c2'.*'c1'",
        ),
        (
            [calling("{}"), {"role": "tool", "content": None, "tool_call_id": "c1"}],
            r"messages\[1\]\.content: is missing",
        ),
        ([USER] * (MAX_MESSAGES + 1), f"the limit is {MAX_MESSAGES}"),
        ([{"role": "user", "content": "x" * 5_000_000}] * 2, rf"messages\[1\]: the messages exceed {MAX_CHARACTERS}"),
    ],
    ids=range(33),
)
def test_a_wrong_message_is_named_by_its_index(messages: Any, place: str) -> None:
    with pytest.raises(InputError, match=place) as error:
        read_messages(messages)
    assert len(str(error.value)) < 300
