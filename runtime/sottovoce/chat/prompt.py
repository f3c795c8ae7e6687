"""From messages to the tokens of a prompt: template, tools told where the template has none, and what must be left out.

Knows the parts of a loaded model and the order in which they are asked. Generates nothing.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.messages import read_messages
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.overflow import fit, reserve_for
from sottovoce.chat.template import ChatTemplate
from sottovoce.chat.thinking import opens_thinking
from sottovoce.chat.tool_parser import calls_in
from sottovoce.chat.tool_prompt import with_tools_told
from sottovoce.chat.tools import ToolChoice
from sottovoce.chat.types import Message
from sottovoce.errors import InputError


@dataclass(frozen=True, slots=True)
class Prompt:
    """`tokens` of the `text`; `dropped` messages were left out; `thinking` is how the answer begins; `calls` were made
    before."""

    text: str
    tokens: tuple[int, ...]
    dropped: int
    opens_thinking: bool
    may_think: bool
    calls: int


def render(
    ready: LoadedChat, messages: Sequence[Message], choice: ToolChoice, variables: Mapping[str, Any] | None = None
) -> str:
    """The prompt's text. Raises InputError for messages that are not sound, or that the template refuses."""
    return ready.plain.shown(_render(ready, messages, choice, variables))


def _render(
    ready: LoadedChat, messages: Sequence[Message], choice: ToolChoice, variables: Mapping[str, Any] | None
) -> str:
    """The text with marks in the place of what must stay text (`plain_text`)."""
    template = _template(ready)
    read = ready.plain.hidden(read_messages(messages))
    if ready.form.injected:
        return template.render(with_tools_told(read, choice), variables=variables)
    tools = [tool.for_template() for tool in choice.tools]
    return template.render(read, tools=tools, variables=variables)


def make_prompt(
    ready: LoadedChat,
    messages: Sequence[Message],
    choice: ToolChoice,
    options: ChatOptions,
    variables: Mapping[str, Any] | None = None,
) -> Prompt:
    """The tokens that are answered, shortened as `options.overflow` says. Raises InputError as `render` and `fit`."""
    calls = calls_in(read_messages(messages))
    texts: dict[int, str] = {}

    def count(some: Sequence[Message]) -> int:
        texts[len(some)] = text = _render(ready, some, choice, variables)
        return len(tokens_of(ready, text))

    context = ready.engine.context
    fitted = fit(messages, count, context, reserve_for(options.max_tokens, context), options.overflow)
    text = texts.get(len(fitted.messages)) or _render(ready, fitted.messages, choice, variables)
    return Prompt(
        text,
        tokens_of(ready, text),
        fitted.dropped,
        opens_thinking(text, ready.tags),
        ready.tags is not None and not text.rstrip().endswith(ready.tags.closing),
        calls,
    )


def tokens_of(ready: LoadedChat, text: str) -> tuple[int, ...]:
    """The tokens of rendered text, with the token that text begins with where it does not have it yet."""
    vocabulary = ready.engine.vocabulary
    tokens = ready.plain.encode(unicodedata.normalize("NFC", text) if ready.composes else text)
    if vocabulary.adds_bos and vocabulary.bos is not None and tokens[:1] != [vocabulary.bos]:
        tokens = [vocabulary.bos, *tokens]
    return tuple(tokens)


def _template(ready: LoadedChat) -> ChatTemplate:
    if ready.template is None:
        raise InputError(
            "this model has no chat template: it was not made to answer messages; Chat.complete, or "
            "`sottovoce chat --raw`, continues text"
        )
    return ready.template
