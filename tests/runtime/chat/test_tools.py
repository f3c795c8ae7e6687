import json
from typing import Any

import jsonschema
import pytest
from tests.runtime.chat.bpe_vocabulary_case import vocabulary
from tests.runtime.chat.constrained_case import at_random, first_of, generate
from tests.runtime.chat.template_case import CLOCK, CONVERSATIONS, FAMILIES, WEATHER

from sottovoce.chat.constraint import Constraints, Thinking
from sottovoce.chat.messages import ChatMessage, read_messages
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.thinking import ThinkingTags
from sottovoce.chat.tool_formats import FORMATS
from sottovoce.chat.tool_parser import ToolCallParser, calls_in
from sottovoce.chat.tool_prompt import with_tools_told
from sottovoce.chat.tools import call_grammar, format_of, read_choice, read_tools
from sottovoce.errors import InputError

CONSTRAINTS = Constraints(vocabulary())
TOOLS = read_tools([WEATHER, CLOCK])
BOUNDED: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {
                "colour": {"$ref": "#/$defs/colour"},
                "spots": {"type": "array", "items": {"$ref": "#/$defs/spot"}, "minItems": 1, "maxItems": 2},
            },
            "required": ["colour", "spots"],
            "$defs": {
                "colour": {"enum": ["red", "grün"]},
                "spot": {"type": "integer", "minimum": 3, "maximum": 12},
            },
        },
    },
}
HOUR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "hour",
        "parameters": {"type": "object", "properties": {"zone": {"enum": ["utc", "local"]}}, "required": ["zone"]},
    },
}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"type": "function"}, "is not a list"),
        ([3], r"tools\[0\]: 3 is not"),
        ([{"type": "retrieval"}], r"tools\[0\]"),
        ([tool(name="a b")], r"tools\[0\]\.function\.name: 'a b'; 1 to 64 letters"),
        ([tool(name="a" * 65)], "1 to 64 letters"),
        ([tool()], "None; 1 to 64 letters"),
        ([tool(name="a"), tool(name="a")], r"tools\[1\]: there is another tool with the name 'a'"),
        ([tool(name="a", parameters={"type": "string"})], r"tools\[0\] \(a\)\.parameters: arguments are an object"),
        ([tool(name="a", parameters="x")], r"tools\[0\] \(a\)\.parameters: 'x' is not a JSON schema"),
        ([tool(name="a", description=3)], "the description is no text"),
        ([tool(name="a", description="x" * 20_001)], "at most 20000"),
        ([tool(name=f"t{index}") for index in range(129)], "129 of them, the limit is 128"),
    ],
)
def test_a_wrong_tool_is_named(tools: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tools(tools)


def test_a_tool_without_parameters_takes_none() -> None:
    assert read_tools([tool(name="now")])[0].parameters == {"type": "object", "properties": {}}


def test_the_choice_is_read_as_openai_has_it() -> None:
    assert read_choice(None, TOOLS).kind == "auto"
    assert read_choice(None, ()).kind == "none"
    assert read_choice("none", TOOLS).kind == "none"
    assert read_choice("required", TOOLS).tools == TOOLS
    named = read_choice({"type": "function", "function": {"name": "clock"}}, TOOLS)
    assert (named.kind, [one.name for one in named.tools], named.parallel) == ("required", ["clock"], False)


@pytest.mark.parametrize(
    ("choice", "tools", "message"),
    [
        ("required", (), "no tools are given"),
        ("always", TOOLS, "'always'"),
        ({"type": "function", "function": {"name": "other"}}, TOOLS, "no tool 'other'; there are get_weather, clock"),
        ({"function": 3}, TOOLS, "is possible"),
        ({"type": "function", "function": {"name": "clock"}}, (), "there are none"),
    ],
)
def test_a_wrong_choice_is_named(choice: Any, tools: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_choice(choice, tools)


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("qwen2", "hermes"),
        ("qwen3", "hermes"),
        ("smollm3", "hermes"),
        ("llama3", "llama3"),
        ("mistral", "mistral"),
        ("phi3", "plain"),
        ("gemma3", "plain"),
        ("smollm2", "plain"),
        ("chatml", "plain"),
    ],
)
def test_the_format_is_seen_from_how_the_template_writes_a_call(family: str, form: str) -> None:
    template = ChatTemplate(FAMILIES[family], special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    assert format_of(template).name == form


def test_phis_format_is_found_though_it_tells_tools_only_in_a_system_message() -> None:
    assert format_of(ChatTemplate(FAMILIES["phi4"])).name == "phi"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_a_required_call_is_made_whatever_the_logits(form: str, parallel: bool, seed: int) -> None:
    tools = read_tools([BOUNDED, HOUR])
    grammar = call_grammar(FORMATS[form], read_choice("required", tools, parallel=parallel), CONSTRAINTS.mark)
    assert grammar is not None
    text, ended = generate(CONSTRAINTS.lark(grammar), at_random(seed), limit=3000)
    assert ended
    parser = ToolCallParser(FORMATS[form], [one.name for one in tools])
    shown, calls = parser.push(text)
    assert (shown + parser.finish()[0]).strip() == ""
    assert calls if parallel else len(calls) == 1
    schemas = {one["function"]["name"]: one["function"]["parameters"] for one in (BOUNDED, HOUR)}
    for call in calls:
        jsonschema.Draft202012Validator(schemas[call.name]).validate(json.loads(call.arguments))


@pytest.mark.parametrize("form", FORMATS)
def test_a_named_tool_is_the_one_that_is_called(form: str) -> None:
    choice = read_choice({"type": "function", "function": {"name": "hour"}}, read_tools([BOUNDED, HOUR]))
    grammar = call_grammar(FORMATS[form], choice, CONSTRAINTS.mark)
    assert grammar is not None
    text, ended = generate(CONSTRAINTS.lark(grammar), at_random(3))
    assert ended
    calls = ToolCallParser(FORMATS[form], ["hour"]).push(text)[1]
    assert [call.name for call in calls] == ["hour"]


@pytest.mark.parametrize("form", FORMATS)
def test_with_auto_any_text_is_an_answer(form: str) -> None:
    grammar = call_grammar(FORMATS[form], read_choice("auto", read_tools([HOUR])), CONSTRAINTS.mark)
    assert grammar is not None
    said = "The <b>fox</b> [jumps] over\n\n the {lazy} dog."
    text, ended = generate(CONSTRAINTS.lark(grammar), first_of(said, "</s>"))
    assert ended
    assert text == said


@pytest.mark.parametrize("form", FORMATS)
def test_with_auto_nothing_but_a_call_follows_the_mark(form: str) -> None:
    row = FORMATS[form]
    grammar = call_grammar(row, read_choice("auto", read_tools([BOUNDED, HOUR])), CONSTRAINTS.mark)
    assert grammar is not None
    before = "Let me look. " if row.opening else ""
    begin = row.opening or '{"name'
    for seed in range(4):
        random, begun = at_random(seed), first_of(before + begin)
        script = len(vocabulary().encode(before + begin, special=True))

        def choose(allowed: Any, step: int, random: Any = random, begun: Any = begun, script: int = script) -> int:
            return int(begun(allowed, step) if step < script else random(allowed, step))

        text, ended = generate(CONSTRAINTS.lark(grammar), choose, limit=3000, use_forced=False)
        assert ended
        parser = ToolCallParser(row, ["paint", "hour"])
        shown, calls = parser.push(text)
        assert calls, text
        assert (shown + parser.finish()[0]).strip() == before.strip()


def test_with_none_nothing_is_constrained() -> None:
    assert call_grammar(FORMATS["hermes"], read_choice("none", TOOLS), CONSTRAINTS.mark) is None


def test_a_tool_whose_schema_cannot_be_kept_is_refused() -> None:
    tools = read_tools(
        [tool(name="a", parameters={"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}})]
    )
    grammar = call_grammar(FORMATS["hermes"], read_choice("required", tools), CONSTRAINTS.mark)
    assert grammar is not None
    with pytest.raises(InputError, match="uniqueItems"):
        CONSTRAINTS.lark(grammar)


@pytest.mark.parametrize("family", ["chatml", "smollm2", "gemma3", "phi3"])
def test_a_template_without_tools_gets_them_told(family: str) -> None:
    choice = read_choice("auto", TOOLS)
    template = ChatTemplate(FAMILIES[family], special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
    for name in ("one", "system", "result", "answered", "parallel"):
        messages = with_tools_told(read_messages(CONVERSATIONS[name]), choice)
        text = template.render(messages)
        assert '"name": "get_weather"' in text
        assert '"name": "clock"' in text
        if name == "system":
            assert text.index("Be brief.") < text.index("get_weather")
        if name == "parallel":
            assert text.count("<tool_response>\n") == 2
            assert [one.role for one in messages] == ["system", "user", "assistant", "user"]


def test_an_injected_call_is_read_back_as_it_was() -> None:
    messages = with_tools_told(read_messages(CONVERSATIONS["parallel"]), read_choice("auto", TOOLS))
    parser = ToolCallParser(FORMATS["plain"], ["get_weather", "clock"])
    shown, calls = parser.push(messages[2].content)
    assert shown == "Let me look."
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == [
        ("call00000", "get_weather", {"city": "a"}),
        ("call00001", "clock", {}),
    ]


def test_the_next_calls_number_is_the_count_of_those_before() -> None:
    assert calls_in(read_messages(CONVERSATIONS["parallel"])) == 2
    assert calls_in((ChatMessage("user", "a"),)) == 0


@pytest.mark.parametrize("open_already", [True, False])
@pytest.mark.parametrize("kind", ["auto", "required"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_model_may_think_before_it_calls(form: str, kind: str, open_already: bool) -> None:
    row = FORMATS[form]
    grammar = call_grammar(row, read_choice(kind, read_tools([HOUR])), CONSTRAINTS.mark)
    assert grammar is not None
    thinking = Thinking(ThinkingTags("<think>", "</think>"), open_already)
    thought = ("" if open_already else "<think>\n") + "I should call something.\n</think>\n\n"
    call = f'{{"name": "hour", "{row.arguments}": {{"zone": "utc"}}}}'
    said = f"{thought}{row.opening}{row.lead}{f'[{call}]' if row.listed else call}{row.tail}{row.closing}"
    text, ended = generate(CONSTRAINTS.lark(grammar, "tools", thinking), first_of(said, "</s>"), use_forced=False)
    assert ended
    assert text == said


@pytest.mark.parametrize(
    ("open_already", "said"),
    [(True, "I think.</think>\n\nThe fox."), (False, "<think>I think.</think>\n\nThe fox."), (False, "The fox.")],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_model_may_think_and_then_answer_with_text(form: str, open_already: bool, said: str) -> None:
    grammar = call_grammar(FORMATS[form], read_choice("auto", read_tools([HOUR])), CONSTRAINTS.mark)
    assert grammar is not None
    thinking = Thinking(ThinkingTags("<think>", "</think>"), open_already)
    text, ended = generate(CONSTRAINTS.lark(grammar, "tools", thinking), first_of(said, "</s>"), use_forced=False)
    assert ended
    assert text == said
