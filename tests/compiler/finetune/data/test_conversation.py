"""What is learned of a conversation, by templates in the manner of every family, held against what the runtime asks."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.runtime.chat.template_case import CONVERSATIONS, FAMILIES, WEATHER

from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prompt import make_prompt
from sottovoce.chat.template import ANSWER, ChatTemplate
from sottovoce.chat.tools import format_of, read_choice, read_tools
from sottovoce.errors import BundleError, InputError
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.conversation import common, conversations
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import ChatLine, read_record

from .data_case import TOKENS, coder_of, learned_texts

NOON = datetime(2026, 3, 4, 12)
USER = {"role": "user", "content": "Hi"}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def chat_line(messages: Any, tools: Any = None, line: int = 1) -> ChatLine:
    fields = {"messages": messages} | ({"tools": tools} if tools else {})
    _, record = read_record(fields, line, Path())
    assert isinstance(record, ChatLine)
    return record


def made(coder: Coder, *lines: ChatLine, separate: bool = False) -> tuple[list[Example], Counter[str], Faults]:
    faults, notes = Faults("data.jsonl"), Counter[str]()
    return conversations(coder, lines, separate, faults, notes), +notes, faults


def only(coder: Coder, messages: Any, tools: Any = None) -> Example:
    (example,), _, faults = made(coder, chat_line(messages, tools))
    assert not faults.count
    return example


def asked_by_runtime(coder: Coder, messages: Any, tools: Any, variables: Any = None) -> list[int]:
    """The tokens that the runtime gives an engine for these messages."""
    assert coder.template is not None
    template = ChatTemplate(coder.template.source, special_tokens=coder.template._special_tokens, clock=lambda: NOON)
    ready: Any = SimpleNamespace(
        engine=SimpleNamespace(vocabulary=coder._vocabulary, context=4096),
        plain=coder._plain,
        composes=False,
        template=template,
        form=format_of(template),
        tags=None,
    )
    choice = read_choice(None, read_tools(tools))
    return list(make_prompt(ready, messages, choice, ChatOptions(max_tokens=1), variables).tokens)


def last_answer(example: Example) -> tuple[list[int], list[int]]:
    before, after = example.last_answer()
    return before.tolist(), after.tolist()


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("conversation", ["turns", "answered", "thought", "reasoned", "unicode", "spaces"])
@pytest.mark.parametrize("family", [family for family in TOKENS if family != "r1"])
def test_the_last_answer_follows_the_tokens_that_the_runtime_asks_with(
    folder: Path, family: str, conversation: str, adds_bos: bool
) -> None:
    coder = coder_of(folder, family, FAMILIES[family], adds_bos=adds_bos, date=NOON)
    messages = [*CONVERSATIONS[conversation]]
    if messages[-1]["role"] != "assistant":
        messages.append(answer("And now: the end."))
    tools = [WEATHER] if conversation == "answered" else None
    (example,), notes, faults = made(coder, chat_line(messages, tools))
    asked, answered = last_answer(example)
    assert not faults.count
    theirs = asked_by_runtime(coder, messages[:-1], tools)
    if notes["merged"]:  # an earlier answer begins with a line's end, and was cut from the one before it
        assert conversation == "spaces" and coder.decode(asked) == coder.decode(theirs)
    else:
        assert asked == theirs
    assert answered[-1] in coder.ends and not coder.ends & set(answered[:-1])
    assert messages[-1]["content"].strip() in coder.decode(answered)


@pytest.mark.parametrize("family", ["chatml", "smollm2", "smollm3", "qwen2", "llama3", "gemma3", "phi3", "phi4"])
def test_every_answer_is_learned_with_its_end_and_nothing_else(folder: Path, family: str) -> None:
    coder = coder_of(folder, family, FAMILIES[family], date=NOON)
    end = {"llama3": "<|eot_id|>", "gemma3": "<end_of_turn>", "phi3": "<|end|>", "phi4": "<|end|>"}
    example = only(coder, [*CONVERSATIONS["turns"]])
    assert learned_texts(coder, example) == [text + end.get(family, "<|im_end|>") for text in ("b", "d")]


def test_a_template_of_mistrals_that_moves_the_system_message_is_asked_as_the_runtime_asks(folder: Path) -> None:
    coder = coder_of(folder, "mistral", FAMILIES["mistral"])
    example, notes, _ = made(coder, chat_line(CONVERSATIONS["turns"]))
    assert learned_texts(coder, example[0]) == [" d</s>"]
    assert "Be brief." in coder.decode(example[0].last_answer()[0])
    assert notes == {"rewritten": 1}


def test_what_comes_after_the_last_answer_is_not_kept(folder: Path) -> None:
    coder = coder_of(folder, "chatml", FAMILIES["chatml"])
    messages = [USER, answer("Hello")]
    longer = only(coder, [*messages, {"role": "user", "content": "And?"}])
    assert longer.ids.tolist() == only(coder, messages).ids.tolist()
    assert coder.decode(longer.ids[-1:]) == "<|im_end|>" and longer.learned[-1]


def test_answers_of_weight_zero_are_read_and_not_learned(folder: Path) -> None:
    for family in ("chatml", "smollm3"):
        coder = coder_of(folder, family, FAMILIES[family], date=NOON)
        messages = [USER, answer("no", weight=0), USER, answer("yes"), USER, answer("late", weight=0)]
        example = only(coder, messages)
        assert learned_texts(coder, example) == ["yes<|im_end|>"]
        assert "no<|im_end|>" in coder.decode(example.ids) and "late" not in coder.decode(example.ids)


def test_a_thinking_template_that_drops_old_reasoning_leaves_the_last_answer(folder: Path) -> None:
    coder = coder_of(folder, "qwen3", FAMILIES["qwen3"])
    messages = [USER, answer("4", reasoning_content="two and two"), USER, answer("6", reasoning_content="three")]
    (example,), notes, _ = made(coder, chat_line(messages))
    assert learned_texts(coder, example) == ["<think>\nthree\n</think>\n\n6<|im_end|>"]
    assert notes == {"rewritten": 1}
    assert "two and two" not in coder.decode(example.ids)


def test_answers_that_a_template_rewrites_can_be_examples_of_their_own(folder: Path) -> None:
    coder = coder_of(folder, "qwen3", FAMILIES["qwen3"])
    messages = [USER, answer("4", reasoning_content="two and two"), USER, answer("6", reasoning_content="three")]
    examples, notes, _ = made(coder, chat_line(messages, line=7), separate=True)
    texts = [learned_texts(coder, example) for example in examples]
    assert texts == [["<think>\nthree\n</think>\n\n6<|im_end|>"], ["<think>\ntwo and two\n</think>\n\n4<|im_end|>"]]
    assert [example.line for example in examples] == [7, 7]
    assert examples[1].last_answer()[0].tolist() == asked_by_runtime(coder, messages[:1], None)
    assert notes == {"separate": 1}


def test_answers_that_a_template_does_not_rewrite_are_not_learned_twice(folder: Path) -> None:
    coder = coder_of(folder, "chatml", FAMILIES["chatml"])
    examples, notes, _ = made(coder, chat_line(CONVERSATIONS["turns"]), separate=True)
    assert len(examples) == 1 and not notes


def test_a_prompt_that_opens_thinking_is_learned_from_where_the_answer_parts(folder: Path) -> None:
    coder = coder_of(folder, "r1", FAMILIES["r1"])
    (example,), notes, _ = made(coder, chat_line([USER, answer("four")]))
    assert learned_texts(coder, example) == ["four</s>"]
    assert coder.decode(example.last_answer()[0]) == "<s><U>Hi<A>"
    assert notes == {"parted": 1}


def test_variables_reach_the_template(folder: Path) -> None:
    coder = coder_of(folder, "qwen3", FAMILIES["qwen3"], variables={"enable_thinking": False})
    messages = [USER, answer("four")]
    asked, answered = last_answer(only(coder, messages))
    assert coder.decode(asked).endswith("<think>\n\n</think>\n\n") and coder.decode(answered) == "four<|im_end|>"
    assert asked == asked_by_runtime(coder, messages[:1], None, {"enable_thinking": False})


def test_a_template_without_an_end_is_ended_by_the_token_that_ends_text(folder: Path) -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    source += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    coder = coder_of(folder, "chatml", source)
    (example,), notes, _ = made(coder, chat_line([USER, answer("b"), USER, answer("d")]))
    assert learned_texts(coder, example) == [" b\n", " d\n<|im_end|>"]
    assert notes == {"unended": 1}


def test_no_token_reaches_over_the_beginning_of_an_answer(folder: Path) -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    source += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    for spaced in (False, True):  # both vocabularies have " a" in one
        coder = coder_of(folder, "chatml", source, spaced=spaced)
        messages = [USER, answer("a b"), USER, answer("ab")]
        (example,), notes, _ = made(coder, chat_line(messages))
        assert learned_texts(coder, example) == ["a b<|im_end|>", "ab<|im_end|>"]
        assert notes == {"merged": 1}
        first = only(coder, messages[:2])
        assert first.last_answer()[0].tolist() == asked_by_runtime(coder, messages[:1], None)
        assert example.ids.tolist()[: len(first)] == first.ids.tolist()


def test_a_control_token_that_somebody_wrote_stays_text(folder: Path) -> None:
    end = "<|im_end|>"
    for family in ("chatml", "smollm3"):
        coder = coder_of(folder, family, FAMILIES[family], date=NOON)
        plain = only(coder, [{"role": "user", "content": "a"}, answer("b c")])
        typed = only(coder, [{"role": "user", "content": f"a{end}"}, answer(f"b{end}c")])
        (ending,) = coder.ends
        assert plain.ids.tolist().count(ending) == typed.ids.tolist().count(ending)
        assert learned_texts(coder, typed) == [f"b{end}c{end}"]


def test_marks_that_somebody_wrote_mark_nothing(folder: Path) -> None:
    coder = coder_of(folder, "smollm3", FAMILIES["smollm3"], date=NOON)
    forged = f"{ANSWER[0]}a{ANSWER[1]}\ue10a1\ue10b"
    messages = [{"role": "user", "content": forged}, answer(f"b{ANSWER[1]}c", reasoning_content=ANSWER[0])]
    assert learned_texts(coder, only(coder, messages)) == ["bc<|im_end|>"]


def test_a_template_that_marks_answers_without_their_end_learns_the_end_too(folder: Path) -> None:
    source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    source += "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    source += "{{ '<|im_end|>\n' }}{% endfor %}"
    example = only(coder := coder_of(folder, "chatml", source), CONVERSATIONS["turns"])
    assert learned_texts(coder, example) == ["b<|im_end|>", "d<|im_end|>"]


@pytest.mark.parametrize("thinking", [True, False])
def test_marked_answers_are_those_that_transformers_masks_but_for_what_frames_them(
    folder: Path, thinking: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    coder = coder_of(
        folder, "smollm3", FAMILIES["smollm3"], variables={"enable_thinking": thinking}, date=datetime.now()
    )
    messages = [*CONVERSATIONS["turns"], answer("f\n\ng")]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=coder._tokenizer)
    theirs = tokenizer.apply_chat_template(
        messages,
        chat_template=FAMILIES["smollm3"],
        enable_thinking=thinking,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    example = only(coder, messages)
    size = len(example)
    assert theirs["input_ids"][:size] == example.ids.tolist()
    ours, mask = example.learned.tolist(), theirs["assistant_masks"]
    assert all(their or not our for our, their in zip(ours, mask, strict=False))  # a part of what they learn
    framing = [token for token, our, their in zip(example.ids, ours, mask, strict=False) if their and not our]
    opened = "<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n")
    assert coder.decode(framing) == (opened + "\n") * 2 + opened


def test_text_that_is_not_utf8_in_one_token_survives(folder: Path) -> None:
    coder = coder_of(folder, "chatml", FAMILIES["chatml"])
    assert learned_texts(coder, only(coder, [USER, answer("Fähre 東京 😀")])) == ["Fähre 東京 😀<|im_end|>"]


def test_a_call_is_learned_as_the_template_writes_it(folder: Path) -> None:
    coder = coder_of(folder, "qwen2", FAMILIES["qwen2"])
    example = only(coder, CONVERSATIONS["answered"], [WEATHER])
    call, text = learned_texts(coder, example)
    assert call == (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich <b>", "days": 2}}\n</tool_call><|im_end|>'
    )
    assert text == "21.5 degrees.<|im_end|>"


def test_calls_that_the_template_does_not_write_are_not_learned_as_empty_answers(folder: Path) -> None:
    coder = coder_of(folder, "smollm3", FAMILIES["smollm3"], date=NOON)
    (example,), notes, _ = made(coder, chat_line(CONVERSATIONS["answered"], [WEATHER]))
    assert learned_texts(coder, example) == ["21.5 degrees.<|im_end|>"] and notes == {"uncalled": 1}
    _, _, faults = made(coder, chat_line(CONVERSATIONS["call"], [WEATHER]))
    assert "messages[1]: the chat template does not write the calls" in faults.first[0].reason


def test_reasoning_that_the_template_does_not_write_is_counted(folder: Path) -> None:
    coder = coder_of(folder, "chatml", FAMILIES["chatml"])
    _, notes, _ = made(coder, chat_line(CONVERSATIONS["reasoned"]))
    assert notes == {"unthought": 1}


def test_a_first_message_of_the_assistants_is_not_learned(folder: Path) -> None:
    coder = coder_of(folder, "smollm2", FAMILIES["smollm2"])
    (example,), notes, _ = made(coder, chat_line([answer("Welcome"), USER, answer("Hello")]))
    assert learned_texts(coder, example) == ["Hello<|im_end|>"] and notes == {"unasked": 1}
    _, _, faults = made(coder, chat_line([answer("Welcome"), USER], line=3))
    assert str(faults.first[0]).startswith("line 3: its only answer is the first message")


def test_messages_that_the_template_refuses_are_faults_of_their_lines_alone(folder: Path) -> None:
    coder = coder_of(folder, "gemma3", FAMILIES["gemma3"])
    lines = [chat_line([USER, answer("a")], line=1), chat_line([USER, USER, answer("b")], line=2)]
    examples, _, faults = made(coder, *lines, chat_line([USER, answer("c")], line=3))
    assert [example.line for example in examples] == [1, 3]
    assert [learned_texts(coder, example) for example in examples] == [["a<end_of_turn>"], ["c<end_of_turn>"]]
    assert [str(fault) for fault in faults.first] == [
        "line 2: the chat template refuses these messages: Roles must go user, assistant, user, assistant"
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "drops the answer"),
        (
            "{% if add_generation_prompt %}asked: {{ messages | length }}{% else %}{{ messages[0].role }}{% endif %}",
            "writes the question otherwise",
        ),
        ("{% for i in range(messages[-1].content | length * 200) %}{{ i }}{% endfor %}", "beyond a limit"),
    ],
)
def test_a_template_that_cannot_be_learned_from_is_said_so(folder: Path, source: str, reason: str) -> None:
    examples, _, faults = made(coder_of(folder, "chatml", source), chat_line([USER, answer("a" * 10_000)]))
    assert not examples and reason in faults.first[0].reason


def test_a_damaged_template_is_refused_before_any_line(folder: Path) -> None:
    with pytest.raises(BundleError, match="the chat template is damaged"):
        coder_of(folder, "chatml", "{% for m in messages %}{{ m.content")


def test_a_model_without_a_template_cannot_learn_conversations(folder: Path) -> None:
    with pytest.raises(InputError, match="chatml has no chat template"):
        made(coder_of(folder, "chatml", None), chat_line([USER, answer("a")]))


def test_what_two_begin_with_is_counted() -> None:
    assert [common([1, 2, 3], other) for other in ([], [1, 2], [1, 2, 3, 4], [1, 9, 3])] == [0, 2, 3, 1]
    assert common("abc", "abd") == 2
