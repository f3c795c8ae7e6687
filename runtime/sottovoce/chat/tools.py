"""Tools that a model may call: definitions checked, the model's way of calling found out, and grammars of calls.

Knows the OpenAI API's shape of tools and choices. Calls are read out of text in `tool_parser`, and told to models whose
template knows no tools in `tool_prompt`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sottovoce.chat.messages import CallMade, ChatMessage
from sottovoce.chat.schema import Schema, parts, read_schema
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.tool_formats import FORMATS, HERMES, LLAMA3, PLAIN, ToolFormat
from sottovoce.errors import InputError

MAX_TOOLS = 128
MAX_DESCRIPTION = 20_000  # characters
MAX_PARALLEL = 16  # calls of one answer, where a grammar forces them
SPACED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # as models are trained

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROBE = "probe_tool_q7"


@dataclass(frozen=True, slots=True)
class Tool:
    """One function the model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Schema

    def for_template(self) -> dict[str, Any]:
        """The OpenAI shape, which templates expect."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`kind` "none", "auto" or "required"; `tools` those that may be called."""

    kind: Literal["none", "auto", "required"]
    tools: tuple[Tool, ...]
    parallel: bool = True


def read_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """`tools`, checked. Raises InputError that names the tool and the value."""
    if tools is None:
        return ()
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise InputError(f"tools: {_shown(tools)} is not a list")
    if len(tools) > MAX_TOOLS:
        raise InputError(f"tools: {len(tools)} of them, the limit is {MAX_TOOLS}")
    read: dict[str, Tool] = {}
    for index, raw in enumerate(tools):
        tool = _read(raw, f"tools[{index}]")
        if tool.name in read:
            raise InputError(f"tools[{index}]: there is another tool with the name {tool.name!r}")
        read[tool.name] = tool
    return tuple(read.values())


def read_choice(choice: Any, tools: Sequence[Tool], *, parallel: bool = True) -> ToolChoice:
    """OpenAI's `tool_choice`; None is "auto" where there are tools. Raises InputError for a tool that is not there."""
    if choice is None:
        choice = "auto"
    if choice in ("none", "auto") and not tools:
        return ToolChoice("none", (), parallel)
    if choice in ("none", "auto", "required"):
        if not tools:
            raise InputError('tool_choice is "required", but no tools are given')
        return ToolChoice(choice, tuple(tools), parallel)
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InputError(
            f'tool_choice: {_shown(choice)}; "none", "auto", "required" or '
            '{"type": "function", "function": {"name": ...}} is possible'
        )
    chosen = tuple(tool for tool in tools if tool.name == name)
    if not chosen:
        raise InputError(f"tool_choice: no tool {name!r}; there are {', '.join(tool.name for tool in tools) or 'none'}")
    return ToolChoice("required", chosen, parallel=False)


def format_of(template: ChatTemplate) -> ToolFormat:
    """How the model behind `template` calls tools, by how the template renders a call; "plain" where it knows none."""
    if not template.knows_tools:
        return PLAIN
    call = CallMade("call00000", _PROBE, {"value": 1})
    conversation = (ChatMessage("user", "Hello"), ChatMessage("assistant", "", tool_calls=(call,)))
    try:
        shown = template.render(conversation, add_generation_prompt=False)
    except InputError:
        shown = ""
    for text in (shown if _PROBE in shown else "", template.source):
        for row in FORMATS.values():
            if row.opening and row.opening in text:
                return row if not row.injected else HERMES
        if text == shown and f'"{LLAMA3.arguments}": ' in text.split(_PROBE, 1)[-1]:
            return LLAMA3
    return PLAIN


def call_grammar(form: ToolFormat, choice: ToolChoice, mark: Callable[[str], str]) -> str | None:
    """The answer as a grammar (llguidance's Lark): calls where one is required; any text, and calls after it, for auto.

    `mark` spells a mark of the format: a literal, or the control token that it is. None where all is allowed.
    """
    if choice.kind == "none":
        return None
    opening = mark(form.opening) if form.opening else ""
    several = choice.parallel and not form.listed
    more = f" more{{0,{MAX_PARALLEL - 1}}}" if several else ""
    rules = [f"body: {_body(form, choice, mark)}", "call: %json " + json.dumps(_call_schema(form, choice.tools))]
    if several:
        rules.append(f"more: {json.dumps(form.between)} {opening} body")
    if choice.kind == "required":
        return "\n".join([f"start: {opening} body{more}", *rules])
    return "\n".join([*_text_before(form, opening, more), *rules])


def _text_before(form: ToolFormat, opening: str, more: str) -> list[str]:
    """Rules for an answer that is text, or text and then calls: from the opening mark on nothing but calls follows."""
    if not form.opening:
        return [f"start: TEXT? | body{more}", r"TEXT: /\s*[^{\s](.|\n)*/"]
    text = "TEXT: /(.|\\n)*/"
    if opening.startswith("<["):  # a control token, which is in no text
        return [f"start: TEXT | TEXT? {opening} body{more}", text]
    return [f"start: TEXT | head body{more}", text, f"head[lazy]: TEXT {opening}"]


def _body(form: ToolFormat, choice: ToolChoice, mark: Callable[[str], str]) -> str:
    """What stands between an opening mark and the end of the closing one."""
    others = f'(", " call){{0,{MAX_PARALLEL - 1}}}' if choice.parallel else ""
    calls = f'"[" call {others} "]"' if form.listed else "call"
    closing = mark(form.closing) if form.closing else ""
    return " ".join(part for part in (_literal(form.lead), calls, _literal(form.tail), closing) if part)


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""


def _call_schema(form: ToolFormat, tools: Sequence[Tool]) -> Schema:
    calls = []
    for index, tool in enumerate(tools):
        arguments = _moved(tool.parameters, f"#/anyOf/{index}/properties/{form.arguments}")
        if "additionalProperties" not in arguments:
            arguments["additionalProperties"] = False  # a small model invents no arguments
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, form.arguments: arguments},
                "required": ["name", form.arguments],
                "additionalProperties": False,
            }
        )
    return {"x-guidance": SPACED, "anyOf": calls}


def _moved(schema: Schema, root: str) -> Schema:
    """A copy of `schema` whose references lead to it where it now is."""
    copy: Schema = json.loads(json.dumps(schema))
    stack: list[Any] = [copy]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            if isinstance(current.get("$ref"), str):
                current["$ref"] = root + current["$ref"].removeprefix("#")
            stack += [part for _, part in parts(current, "")]
    return copy


def _read(raw: Any, place: str) -> Tool:
    function = raw.get("function") if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or raw.get("type", "function") != "function":
        raise InputError(f'{place}: {_shown(raw)} is not {{"type": "function", "function": {{"name": ...}}}}')
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{place}.function.name: {_shown(name)}; 1 to 64 letters, digits, '_' or '-' are possible")
    description = function.get("description")
    description = "" if description is None else description
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        raise InputError(f"{place} ({name}): the description is no text of at most {MAX_DESCRIPTION} characters")
    given = function.get("parameters")
    place = f"{place} ({name}).parameters"
    parameters = read_schema({"type": "object", "properties": {}} if given is None else given, place)
    if parameters.setdefault("type", "object") != "object":
        raise InputError(
            f'{place}: arguments are an object, so "type" must be "object", not {_shown(parameters["type"])}'
        )
    return Tool(name, description, parameters)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
