"""Conversations on which our rendering of a chat template must equal transformers', to the character."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.chat.messages import read_messages
from sottovoce_compiler.lowerings.gguf.tokenizer_file import special_text
from sottovoce_compiler.sources.checkpoint import Checkpoint

_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": 'Looks up a word; "quotes", <tags> & ünïcode stay as they are.',
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
            "required": ["word"],
        },
    },
}
_CALL = {
    "id": "call00000",
    "type": "function",
    "function": {"name": "look_up", "arguments": json.dumps({"word": "Fähre", "limit": 2})},
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages and what is given beside them."""

    name: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    add_generation_prompt: bool = True


def _of(*pairs: tuple[str, str]) -> tuple[Mapping[str, Any], ...]:
    return tuple({"role": role, "content": content} for role, content in pairs)


CONVERSATIONS = (
    Conversation("one question", _of(("user", "Hello"))),
    Conversation("a system message", _of(("system", "Be brief."), ("user", "Hello"))),
    Conversation("several turns", _of(("user", "Hi"), ("assistant", "Hello!"), ("user", "And now?"))),
    Conversation(
        "several turns with a system message",
        _of(("system", "You are a pilot."), ("user", "Hi"), ("assistant", "Ready."), ("user", "Take off.")),
    ),
    Conversation("without the beginning of an answer", _of(("user", "Hi"), ("assistant", "Hello!")), (), False),
    Conversation("space around text", _of(("user", "  two\n\nlines \n"), ("assistant", "\nyes \n"), ("user", " "))),
    Conversation("text that looks like JSON", _of(("user", '{"a": [1, 2], "b": "<x> & \\"y\\""}'))),
    Conversation("scripts and signs", _of(("user", "Größe 日本語 العربية 😀 ½ \u00a0 — “q”"))),
    Conversation("text that looks like a template", _of(("user", "{{ 7 * 7 }} {% if x %}"))),
    Conversation("a tool", _of(("user", "What is a ferry?")), (_TOOL,)),
    Conversation("a tool and a system message", _of(("system", "Use tools."), ("user", "What is a ferry?")), (_TOOL,)),
    Conversation(
        "a call and its result",
        (
            {"role": "user", "content": "What is a ferry?"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call00000", "content": '{"found": "a boat"}'},
        ),
        (_TOOL,),
    ),
    Conversation("no user", _of(("system", "Be brief."))),
    Conversation("two questions in a row", _of(("user", "One?"), ("user", "Two?"))),
)


def source_rendering(checkpoint: Checkpoint) -> Callable[[Conversation], str | None]:
    """transformers' rendering of the source's template; None where it refuses a conversation."""
    import transformers
    from tokenizers import Tokenizer

    library: Any = transformers
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: text for name in names if (text := special_text(checkpoint, name)) is not None}
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(checkpoint.tokenizer_file)),
        chat_template=checkpoint.chat_template,
        **special,
    )

    def render(conversation: Conversation) -> str | None:
        messages = [message.for_template() for message in read_messages(conversation.messages)]
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages,
                    tools=list(conversation.tools) or None,
                    add_generation_prompt=conversation.add_generation_prompt,
                    tokenize=False,
                )
            )
        except Exception:  # a template refuses by raising whatever Jinja raises
            return None

    return render
