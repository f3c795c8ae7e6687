"""An answer as it streams: the loop's text divided into what was thought, said and called.

Knows the loaded parts, a prompt and a constraint; the loop itself is in `generate`.
"""

from collections.abc import Generator
from dataclasses import replace

from sottovoce.chat.generate import generate
from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prompt import Prompt
from sottovoce.chat.protocols import Constraint
from sottovoce.chat.thinking import ThinkingSplit
from sottovoce.chat.tool_parser import ToolCallParser
from sottovoce.chat.tools import ToolChoice
from sottovoce.chat.types import Delta, FinishReason, ToolCall
from sottovoce.errors import IncompleteOutputError

_SHOWN = 200  # characters of a broken-off answer in the error


def answer(
    ready: LoadedChat,
    prompt: Prompt,
    options: ChatOptions,
    choice: ToolChoice,
    constraint: Constraint | None,
    must_be: str | None,
) -> Generator[Delta, None, None]:
    """The answer's deltas. `must_be` names what it has to be whole ("JSON", "a tool call"), None for text.

    Raises IncompleteOutputError where the token limit cuts such an answer off.
    """
    split = ThinkingSplit(ready.tags, prompt.opens_thinking)
    parser = _parser(ready, choice, prompt)
    said, called = "", False
    for step in generate(ready.prefix, prompt.tokens, options, constraint, _marks(ready, choice)):
        text, reasoning = split.push(step.text)
        if step.finish_reason is not None:
            last_text, last_reasoning = split.finish()
            text, reasoning = text + last_text, reasoning + last_reasoning
        calls: tuple[ToolCall, ...] = ()
        if parser is not None:
            text, calls = parser.push(text)
            if step.finish_reason is not None:
                rest, more = parser.finish()
                text, calls = text + rest, calls + more
        said, called = said + text, called or bool(calls)
        if step.finish_reason is None or step.usage is None:
            if text or reasoning or calls:
                yield Delta(text, reasoning, calls)
            continue
        if must_be is not None and step.finish_reason == "length" and not (must_be == "a tool call" and called):
            raise _incomplete(must_be, said, step.usage.completion_tokens)
        reason: FinishReason = "tool_calls" if called and step.finish_reason == "stop" else step.finish_reason
        yield Delta(text, reasoning, calls, reason, replace(step.usage, dropped_messages=prompt.dropped))


def _parser(ready: LoadedChat, choice: ToolChoice, prompt: Prompt) -> ToolCallParser | None:
    if choice.kind == "none":
        return None
    return ToolCallParser(ready.form, [tool.name for tool in choice.tools], prompt.calls)


def _marks(ready: LoadedChat, choice: ToolChoice) -> frozenset[int]:
    """Control tokens whose spelling is needed: marks of calls and of thinking."""
    marks = [ready.form.opening, ready.form.closing] if choice.kind != "none" else []
    marks += [ready.tags.opening, ready.tags.closing] if ready.tags is not None else []
    encoded = [ready.engine.vocabulary.encode(mark, special=True) for mark in marks if mark]
    return frozenset(tokens[0] for tokens in encoded if len(tokens) == 1)


def _incomplete(must_be: str, said: str, tokens: int) -> IncompleteOutputError:
    shown = said if len(said) <= _SHOWN else said[:_SHOWN] + "..."
    return IncompleteOutputError(
        f"the answer was cut off after {tokens} tokens and is not {must_be}; raise max_tokens. So far: {shown!r}", said
    )
