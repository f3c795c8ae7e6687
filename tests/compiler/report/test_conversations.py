"""The conversations, and what transformers makes of them, against renderings written by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sottovoce.chat.messages import read_messages
from sottovoce.chat.template import ChatTemplate
from sottovoce.errors import InputError
from sottovoce_compiler.report.conversations import CONVERSATIONS, Conversation, source_rendering
from sottovoce_compiler.sources.checkpoint import Checkpoint

from ..chat_compile_case import CHATML
from ..lowerings.gguf.tokenizer_case import byte_level, checkpoint_of

GEMMA = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}"
    "{%- endif -%}{%- for message in messages -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}"
    "{{ '<' + message['role'] + '>' + message['content'] | trim + eos_token }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<model>' }}{%- endif -%}"
)
TOOLS = (
    "{%- if tools -%}{{ tools | tojson(indent=2) }}{%- endif -%}{%- for message in messages -%}"
    "[{{ message.role }}|{{ message.content }}|{{ (message.tool_calls or [])[0].function.arguments | tojson "
    "if message.tool_calls else '' }}]{%- endfor -%}"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return checkpoint_of(byte_level("gpt-2"), tmp_path)


def test_each_conversation_is_sound_and_has_a_name_of_its_own() -> None:
    assert len({one.name for one in CONVERSATIONS}) == len(CONVERSATIONS) == 14
    for one in CONVERSATIONS:
        assert read_messages(one.messages)
        assert json.loads(json.dumps(list(one.messages))) == list(one.messages)
    roles = {message["role"] for one in CONVERSATIONS for message in one.messages}
    assert roles == {"system", "user", "assistant", "tool"}
    assert any(one.tools for one in CONVERSATIONS) and not all(one.add_generation_prompt for one in CONVERSATIONS)


def test_the_sources_rendering_is_the_one_that_can_be_written_by_hand(checkpoint: Checkpoint) -> None:
    render = source_rendering(replace(checkpoint, chat_template=CHATML))
    by_name = {one.name: render(one) for one in CONVERSATIONS}
    assert by_name["a system message"] == "<s>system\nBe brief.</s>\n<s>user\nHello</s>\n<s>assistant\n"
    assert by_name["without the beginning of an answer"] == "<s>user\nHi</s>\n<s>assistant\nHello!</s>\n"
    assert by_name["text that looks like a template"] == "<s>user\n{{ 7 * 7 }} {% if x %}</s>\n<s>assistant\n"


def test_what_the_template_refuses_is_none(checkpoint: Checkpoint) -> None:
    render = source_rendering(replace(checkpoint, chat_template=GEMMA))
    refused = [one.name for one in CONVERSATIONS if render(one) is None]
    assert {"a system message", "two questions in a row", "no user"} <= set(refused)
    assert render(CONVERSATIONS[0]) == "<|begin|><user>Hello<|im_end|><model>"


def test_special_tokens_are_read_where_older_models_have_them(checkpoint: Checkpoint) -> None:
    old = replace(
        checkpoint,
        chat_template="{{ bos_token }}|{{ eos_token }}",
        tokenizer_config={},
        special_tokens_map={"bos_token": "<b>", "eos_token": {"content": "<e>"}},
    )
    assert source_rendering(old)(CONVERSATIONS[0]) == "<b>|<e>"


@pytest.mark.parametrize("template", [CHATML, GEMMA, TOOLS])
def test_our_rendering_is_the_sources_for_every_conversation(template: str, checkpoint: Checkpoint) -> None:
    ours = ChatTemplate(template, special_tokens={"bos_token": "<|begin|>", "eos_token": "<|im_end|>"})
    theirs = source_rendering(replace(checkpoint, chat_template=template))

    def rendered(one: Conversation) -> str | None:
        try:
            return ours.render(
                read_messages(one.messages), tools=one.tools, add_generation_prompt=one.add_generation_prompt
            )
        except InputError:
            return None

    for one in CONVERSATIONS:
        assert rendered(one) == theirs(one), one.name
