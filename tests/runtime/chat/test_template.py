import sys
from datetime import datetime
from typing import Any

import pytest
from tests.runtime.chat.template_case import CLOCK, CONVERSATIONS, FAMILIES, WEATHER

from sottovoce.chat.messages import ChatMessage, read_messages
from sottovoce.chat.template import ANSWER, ChatTemplate
from sottovoce.errors import BundleError, InputError, MissingExtraError

NOON = datetime(2026, 3, 4, 12)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
HELLO = (ChatMessage("user", "Hello"),)


@pytest.fixture(scope="module")
def reference() -> Any:
    """A tokenizer of transformers', which renders by its own code."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **SPECIAL)


def rendered_by_reference(reference: Any, source: str, conversation: Any, **options: Any) -> str | None:
    """What transformers renders, or None where the template refuses."""
    try:
        text = reference.apply_chat_template(conversation, chat_template=source, tokenize=False, **options)
    except Exception as error:
        assert type(error).__name__ in ("TemplateError", "UndefinedError", "TypeError"), error
        return None
    assert isinstance(text, str)
    return text


def render(source: str, messages: Any = HELLO, **options: Any) -> str:
    return ChatTemplate(source, special_tokens=SPECIAL, clock=lambda: NOON).render(messages, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_of_every_family_renders_as_transformers_does(family: str, reference: Any) -> None:
    source = FAMILIES[family]
    today = datetime.now()
    template = ChatTemplate(source, special_tokens=SPECIAL, clock=lambda: today)
    rendered = 0
    for name, conversation in CONVERSATIONS.items():
        for tools in (None, [WEATHER], [WEATHER, CLOCK]):
            for prompt in (True, False):
                for variables in ({}, {"enable_thinking": False}, {"date_string": "1 May"}):
                    expected = rendered_by_reference(
                        reference, source, conversation, tools=tools, add_generation_prompt=prompt, **variables
                    )
                    given: Any = {"tools": tools or (), "add_generation_prompt": prompt, "variables": variables}
                    if expected is None:
                        with pytest.raises(InputError):
                            template.render(read_messages(conversation), **given)
                        continue
                    assert template.render(read_messages(conversation), **given) == expected, (name, given)
                    rendered += 1
    assert rendered >= 18


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_message_can_be_continued_as_transformers_does(family: str, reference: Any) -> None:
    source = FAMILIES[family]
    today = datetime.now()
    template = ChatTemplate(source, special_tokens=SPECIAL, clock=lambda: today)
    for last in ("Once upon", "Once upon ", "Once upon\n\n"):
        conversation = [{"role": "user", "content": "Tell"}, {"role": "assistant", "content": last}]
        try:
            expected = reference.apply_chat_template(
                conversation, chat_template=source, tokenize=False, continue_final_message=True
            )
        except ValueError:  # the template does not show the message as it is
            continue
        if family != "corners":
            assert template.render(read_messages(conversation), continue_final=True) == expected


def test_only_an_answer_can_be_continued() -> None:
    with pytest.raises(InputError, match="only an assistant's"):
        render(FAMILIES["chatml"], continue_final=True)


def test_what_the_template_raises_is_the_message() -> None:
    with pytest.raises(InputError, match="refuses these messages: Roles must go user"):
        render(FAMILIES["gemma3"], read_messages([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]))


def test_the_clock_can_be_given() -> None:
    assert "Today: 04 March 2026" in render(FAMILIES["smollm3"])


KNOWING = ("qwen2", "qwen3", "llama3", "mistral", "smollm3")


@pytest.mark.parametrize("family", [*KNOWING, "chatml", "smollm2", "gemma3", "phi3", "r1"])
def test_whether_a_template_knows_tools_is_seen_from_what_it_renders(family: str) -> None:
    assert ChatTemplate(FAMILIES[family], special_tokens=SPECIAL).knows_tools is (family in KNOWING)


def test_a_tools_result_can_be_rendered_after_an_answer_without_content() -> None:
    conversation = [dict(message) for message in CONVERSATIONS["result"]]
    conversation[2]["content"] = None
    for family in FAMILIES:
        if family != "gemma3":  # which takes no message of a tool
            assert render(FAMILIES[family], read_messages(conversation))


def test_a_variable_must_be_json() -> None:
    with pytest.raises(InputError, match="only JSON values"):
        render("{{ x }}", variables={"x": object()})


def test_without_jinja_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("sottovoce.chat.template_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sottovoce\[chat\]'"):
        render("x")


def test_a_damaged_template_names_the_line() -> None:
    with pytest.raises(BundleError, match="is damaged: line 2"):
        render("\n{% for %}")


def test_a_template_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BundleError, match="65537 characters, the limit is 65536"):
        ChatTemplate("a" * 65537)


def test_a_long_conversation_is_within_the_limits() -> None:
    pair = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "answer " * 200}]
    messages = read_messages([*pair * 1000, pair[0]])
    for family in FAMILIES:
        if family != "corners":
            assert len(render(FAMILIES[family], messages, tools=[WEATHER])) > 1_000_000


def test_what_the_template_says_the_model_writes_is_marked_on_request() -> None:
    template = ChatTemplate(FAMILIES["smollm3"], special_tokens=SPECIAL, clock=lambda: NOON)
    messages = read_messages(CONVERSATIONS["turns"])
    plain = template.render(messages, add_generation_prompt=False)
    marked = template.render(messages, add_generation_prompt=False, mark_answers=True)
    answers = [part.split(ANSWER[1])[0] for part in marked.split(ANSWER[0])[1:]]
    assert answers == [f"<|im_start|>assistant\n{text}<|im_end|>\n" for text in ("b", "d")]
    assert marked.replace(ANSWER[0], "").replace(ANSWER[1], "") == plain
    assert template.render(messages, add_generation_prompt=False) == plain
    assert template.marks_answers


def test_a_template_that_says_nothing_about_it_marks_nothing() -> None:
    template = ChatTemplate(FAMILIES["qwen3"] + "{# {% generatio %} #}", special_tokens=SPECIAL)
    messages = read_messages(CONVERSATIONS["turns"])
    assert not template.marks_answers
    assert template.render(messages, mark_answers=True) == template.render(messages)
