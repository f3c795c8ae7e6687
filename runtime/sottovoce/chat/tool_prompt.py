"""Tools for models whose template knows none: told in the system message, called and answered in plain messages.

The form is the one that most models have seen (`tool_formats.PLAIN`). Knows messages and tools, no template.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from sottovoce.chat.messages import CallMade, ChatMessage
from sottovoce.chat.tool_formats import PLAIN
from sottovoce.chat.tools import ToolChoice

_TOLD = """You can call functions. These are their names, what they do, and the JSON schemas of their arguments:
{functions}

To call one, write only this, with the function's name and its arguments as JSON:
{example}
The result is then given to you between <tool_response> and </tool_response>. {when}"""
_WHEN = {
    "auto": "Call a function only where it helps; otherwise answer as usual.",
    "required": "Now call a function.",
}


def with_tools_told(messages: Sequence[ChatMessage], choice: ToolChoice) -> tuple[ChatMessage, ...]:
    """`messages` in which calls and results are text, and the system message tells about the tools of `choice`."""
    plain: list[ChatMessage] = []
    for message in messages:
        told = _as_text(message)
        if told.role == "user" and message.role == "tool" and plain and plain[-1].role == "user":
            plain[-1] = replace(plain[-1], content=f"{plain[-1].content}\n{told.content}")
        else:
            plain.append(told)
    if choice.kind == "none":
        return tuple(plain)
    told_text = _told(choice)
    if plain and plain[0].role == "system":
        plain[0] = replace(plain[0], content=f"{plain[0].content}\n\n{told_text}".lstrip())
        return tuple(plain)
    return (ChatMessage("system", told_text), *plain)


def _told(choice: ToolChoice) -> str:
    functions = "\n".join(
        json.dumps(tool.for_template()["function"], ensure_ascii=False, sort_keys=False) for tool in choice.tools
    )
    example = f'{PLAIN.opening}\n{{"name": "...", "arguments": {{...}}}}\n{PLAIN.closing}'
    return _TOLD.format(functions=functions, example=example, when=_WHEN[choice.kind])


def _as_text(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.tool_calls:
        return message
    calls = PLAIN.between.join(map(_call, message.tool_calls))
    return replace(message, content=f"{message.content}\n{calls}".lstrip("\n"), tool_calls=())


def _call(call: CallMade) -> str:
    spelt = json.dumps({"name": call.name, PLAIN.arguments: dict(call.arguments)}, ensure_ascii=False)
    return f"{PLAIN.opening}{PLAIN.lead}{spelt}{PLAIN.tail}{PLAIN.closing}"
