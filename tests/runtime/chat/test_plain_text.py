from pathlib import Path

import pytest
from llama_case import needs_llama
from tiny_gguf import tiny_gguf

from sottovoce.chat.chat import Chat
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prompt import make_prompt
from sottovoce.chat.tools import ToolChoice

pytestmark = needs_llama
NO_TOOLS = ToolChoice("none", ())
END = "<|im_end|>"


def tokens(chat: Chat, *contents: str) -> tuple[int, ...]:
    ready = chat._ready
    options = ChatOptions(max_tokens=1)
    messages = [{"role": "user", "content": content} for content in contents]
    return make_prompt(ready, messages, NO_TOOLS, options).tokens


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(tiny_gguf(tmp_path / "tiny.gguf"), threads=1)


def test_a_control_token_that_a_user_typed_stays_text(chat: Chat) -> None:
    vocabulary = chat._ready.engine.vocabulary
    (end,) = vocabulary.encode(END, special=True)
    harmless, typed = tokens(chat, "a b"), tokens(chat, f"a{END}b")
    assert harmless.count(end) == typed.count(end)
    spelt = b"".join(vocabulary.token_bytes(token) for token in typed)
    assert spelt.count(END.encode()) == harmless.count(end) + 1


def test_the_prompt_is_shown_as_it_was_written(chat: Chat) -> None:
    assert f"a{END}b" in chat.render([{"role": "user", "content": f"a{END}b"}])
    assert "\ue10a" not in chat.render([{"role": "user", "content": f"a{END}b"}])


def test_marks_that_a_user_wrote_are_dropped(chat: Chat) -> None:
    (end,) = chat._ready.engine.vocabulary.encode(END, special=True)
    forged = f"a\ue10a{end}\ue10bb"
    assert tokens(chat, forged) == tokens(chat, f"a{end}b")


def test_text_without_control_tokens_is_encoded_as_a_whole(chat: Chat) -> None:
    messages = [{"role": "user", "content": "the quick  brown\nfox"}]
    whole = chat._ready.engine.vocabulary.encode(chat.render(messages), special=True)
    assert list(tokens(chat, "the quick  brown\nfox"))[-len(whole) :] == whole
