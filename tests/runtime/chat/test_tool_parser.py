import json
import random
from typing import Any

import pytest

from sottovoce.chat.tool_formats import FORMATS
from sottovoce.chat.tool_parser import ToolCallParser, call_id

NAMES = ("get_weather", "clock")
W = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
C = '{"name": "clock", "arguments": {}}'
LW = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
LC = '{"name": "clock", "parameters": {}}'
WEATHER = ("get_weather", {"city": "Paris"})
CLOCK: tuple[str, dict[str, Any]] = ("clock", {})


def parse(
    form: str, text: str, seed: int | None = None, first: int = 0
) -> tuple[str, list[tuple[str, Any]], list[str]]:
    """(text shown, calls, their ids) of a stream cut into single characters, or at random."""
    parser, generator = ToolCallParser(FORMATS[form], NAMES, first), random.Random(seed)
    shown: list[str] = []
    calls = []
    at = 0
    while at < len(text):
        size = 1 if seed is None else generator.randint(1, 30)
        now, made = parser.push(text[at : at + size])
        shown.append(now)
        calls += made
        at += size
    now, made = parser.finish()
    calls += made
    return (
        "".join([*shown, now]),
        [(call.name, json.loads(call.arguments)) for call in calls],
        [call.id for call in calls],
    )


@pytest.mark.parametrize("seed", [None, *range(5)])
@pytest.mark.parametrize(
    ("form", "stream", "text", "calls"),
    [
        ("hermes", f"<tool_call>\n{W}\n</tool_call>", "", [WEATHER]),
        (
            "hermes",
            f"Let me see.\n<tool_call>\n{W}\n</tool_call>\n<tool_call>\n{C}\n</tool_call>\n",
            "Let me see.",
            [WEATHER, CLOCK],
        ),
        ("hermes", f"<tool_call>{C}</tool_call> and so", "and so", [CLOCK]),
        ("hermes", f"<tool_call>\n{C}", "", [CLOCK]),
        ("hermes", f"<tool_call>\n{C}\n</tool", "", [CLOCK]),
        ("hermes", f"<tool_call>[{W}, {C}]</tool_call>", "", [WEATHER, CLOCK]),
        ("hermes", "no call here <tool", "no call here <tool", []),
        ("hermes", " spaces kept \n", " spaces kept \n", []),
        ("mistral", f"[TOOL_CALLS] [{W}, {C}]", "", [WEATHER, CLOCK]),
        ("mistral", f"Sure.[TOOL_CALLS][{W}]", "Sure.", [WEATHER]),
        ("phi", f"<|tool_call|>[{W},{C}]<|/tool_call|>", "", [WEATHER, CLOCK]),
        ("llama3", LW, "", [WEATHER]),
        ("llama3", f"\n{LW}; {LC}", "", [WEATHER, CLOCK]),
        ("llama3", f"{LW}\n{LC}\n", "", [WEATHER, CLOCK]),
        ("llama3", f"It is {LW}", f"It is {LW}", []),
        ("llama3", '{"answer": 4}', '{"answer": 4}', []),
        ("plain", f"<tool_call>\n{W}\n</tool_call>", "", [WEATHER]),
    ],
)
def test_calls_are_read_however_the_stream_is_cut(
    form: str, stream: str, text: str, calls: list[Any], seed: int | None
) -> None:
    assert parse(form, stream, seed)[:2] == (text, calls)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize(
    "stream",
    [
        "<tool_call>\n{'name': 'clock'}\n</tool_call>",
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": "{"}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "argum',
        "<tool_call>\nclock()\n</tool_call>",
        "<tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": ["clock"]}</tool_call>',
        "<tool_call>" + "[" * 5000 + "]" * 5000,
    ],
)
def test_what_is_not_a_call_is_shown_as_it_was(stream: str, seed: int | None) -> None:
    assert parse("hermes", stream, seed)[:2] == (stream, [])


def test_a_mark_within_an_argument_does_not_end_the_call() -> None:
    arguments = {"text": 'a </tool_call> {"b": "}"} \\" <tool_call>'}
    stream = "<tool_call>\n" + json.dumps({"name": "clock", "arguments": arguments}) + "\n</tool_call>"
    assert parse("hermes", stream)[:2] == ("", [("clock", arguments)])


def test_a_call_after_a_broken_one_is_still_read() -> None:
    text, calls, _ = parse("hermes", f"<tool_call>oops</tool_call><tool_call>{C}</tool_call>")
    assert text == "<tool_call>oops</tool_call>"
    assert calls == [CLOCK]


def test_arguments_that_are_spelt_as_a_string_are_taken() -> None:
    assert parse("hermes", '<tool_call>{"name": "clock", "arguments": "{\\"a\\": 1}"}</tool_call>')[1] == [
        ("clock", {"a": 1})
    ]


def test_either_name_of_the_arguments_is_taken() -> None:
    assert parse("llama3", W)[1] == [WEATHER]
    assert parse("hermes", f"<tool_call>{LW}</tool_call>")[1] == [WEATHER]


def test_a_call_comes_as_soon_as_its_json_is_whole() -> None:
    parser = ToolCallParser(FORMATS["hermes"], NAMES)
    assert parser.push("<tool_call>\n" + C[:-1]) == ("", ())
    assert len(parser.push("}")[1]) == 1


def test_ids_go_on_over_a_conversation_and_please_every_template() -> None:
    ids = parse("hermes", f"<tool_call>{C}</tool_call><tool_call>{W}</tool_call>", first=3)[2]
    assert ids == ["call00003", "call00004"]
    assert len(call_id(7)) == 9
    assert call_id(7).isalnum()


def test_text_that_cannot_be_a_mark_is_not_held_back() -> None:
    parser = ToolCallParser(FORMATS["hermes"], NAMES)
    assert parser.push("a <b") == ("a <b", ())
    assert parser.push(" c <tool_") == (" c", ())
    assert parser.push("box>") == (" <tool_box>", ())
