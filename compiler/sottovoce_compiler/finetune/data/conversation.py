"""Conversations as examples: rendered by the model's own template, learned in the assistant's answers alone.

Where an answer begins and ends is found in two ways. A template with `{% generation %}` says it. For others the
conversation is rendered up to each answer, as it is when the model is asked, and up to its end; what is learned is what
comes after the first and ends the second, provided that the whole conversation has the same tokens there. A template
that rewrites what was said (one that drops the reasoning of earlier answers) fails that for earlier answers: they are
counted, and left out or made examples of their own. The last answer is learned in any case. What an answer ends with is
learned too, what the template writes after that is not. Where the last characters of a prompt would be one token with
the answer, the tokens are cut there, as they are when the model is asked. Knows no file and no other kind of data.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sottovoce.chat.template import ANSWER
from sottovoce.errors import BundleError, InputError
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import ChatLine

T = TypeVar("T")

_ANCHOR = 8  # characters of a prompt's end by which it is found in the whole conversation


@dataclass(frozen=True, slots=True)
class Answer:
    """Message `index`: after the text `prompt` the model is asked, `end` ends with its answer."""

    index: int
    prompt: str
    end: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation up to its last answer, with those answers whose prompts `whole` begins with; `rewritten` are the
    indices of the others. `parted`: of the last one, `whole` has only the beginning of the prompt."""

    chat: ChatLine
    whole: str
    answers: tuple[Answer, ...]
    rewritten: tuple[int, ...] = ()
    parted: bool = False


def conversations(
    coder: Coder, lines: Sequence[ChatLine], separate: bool, faults: Faults, notes: Counter[str]
) -> list[Example]:
    """An example for each line that is sound, and with `separate` one more for each answer that the template rewrites
    once the conversation goes on; other lines are added to `faults`, and what is remarkable is counted in `notes`.

    Raises InputError where the model has no chat template.
    """
    if coder.template is None:
        raise InputError(
            f"{coder.name} has no chat template: it was not made to answer messages. Write the data as "
            '{"prompt": "...", "completion": "..."} or {"text": "..."}, or take the model\'s instruct version'
        )
    rendered = []
    for line in lines:
        try:
            rendered.append(render(coder, line, notes))
        except (InputError, BundleError) as error:
            faults.add(line.line, str(error))
    encoded = _encoded(coder, [text for one in rendered for text in _texts(one)])
    found: list[Example] = []
    alone: list[ChatLine] = []
    for one in rendered:
        example, rewritten = _example(coder, one, encoded, notes)
        if example is None:
            faults.add(one.chat.line, "the chat template drops the answer, so that nothing is learned")
        else:
            found.append(example)
            alone += (replace(one.chat, answers=(index,)) for index in rewritten)
    notes["separate" if separate else "rewritten"] += len(alone)
    return found + conversations(coder, alone, False, faults, notes) if separate and alone else found


def render(coder: Coder, chat: ChatLine, notes: Counter[str]) -> Rendered:
    """The texts of a conversation. Raises InputError or BundleError where the template refuses them, or does not write
    what is to be learned."""
    assert coder.template is not None
    asked = tuple(index for index in chat.answers if index > 0)
    notes["unasked"] += len(chat.answers) - len(asked)
    if not asked:
        raise InputError("its only answer is the first message, so that nothing asks for it")
    chat = replace(chat, messages=coder.hidden(chat.messages[: asked[-1] + 1]), answers=asked)
    whole = coder.render(chat.messages, chat.tools, prompt=False)
    found = _by_marks(coder, chat, whole) if coder.template.marks_answers else None
    found = found or _by_prompts(coder, chat, whole, notes)
    return replace(found, answers=tuple(answer for answer in found.answers if _is_written(found, answer, notes)))


def _is_written(one: Rendered, answer: Answer, notes: Counter[str]) -> bool:
    """Whether the calls of an answer are in its text. Raises InputError where those of the last answer are not."""
    message = one.chat.messages[answer.index]
    text = answer.end[common(answer.prompt, answer.end) :]
    notes["unthought"] += bool(message.reasoning and message.reasoning.strip()[:40] not in text)
    if all(call.name in text for call in message.tool_calls):
        return True
    if answer.index == one.chat.answers[-1]:
        raise InputError(f"messages[{answer.index}]: the chat template does not write the calls of an answer")
    notes["uncalled"] += 1
    return False


def _by_marks(coder: Coder, chat: ChatLine, whole: str) -> Rendered | None:
    """By the template's own marks; None where they do not tell which message is which."""
    opening, closing = ANSWER
    text = coder.render(chat.messages, chat.tools, prompt=False, mark_answers=True)
    parts = text.replace(closing, opening).split(opening)  # outside, inside, outside, ...
    if "".join(parts) != whole or len(parts) % 2 == 0:
        return None
    spoken = [index for index, message in enumerate(chat.messages) if message.role == "assistant"]
    if len(parts) // 2 != len(spoken):
        return None
    answers, at = [], 0
    for index, part in enumerate(parts):
        if index % 2 and spoken[index // 2] in chat.answers:
            begun = len(coder.answer_prompt) if part.startswith(coder.answer_prompt) else 0
            answers.append(Answer(spoken[index // 2], whole[: at + begun], whole[: at + len(part)]))
        at += len(part)
    return Rendered(chat, whole, tuple(answers))


def _by_prompts(coder: Coder, chat: ChatLine, whole: str, notes: Counter[str]) -> Rendered:
    """By the prompts of all answers."""
    *earlier, last = chat.answers
    prompt = coder.render(chat.messages[:last], chat.tools, prompt=True)
    if not whole.startswith(prompt):
        return _by_last_prompt(coder, chat, whole, prompt, notes)
    answers, rewritten = [], []
    for index in earlier:
        answer = _asked(coder, chat, index)
        if answer and whole.startswith(answer.prompt):
            answers.append(answer)
        else:
            rewritten.append(index)
    return Rendered(chat, whole, (*answers, Answer(last, prompt, whole)), tuple(rewritten))


def _asked(coder: Coder, chat: ChatLine, index: int) -> Answer | None:
    """An earlier answer as it was when it was the last; None where the template does not take the beginning of a
    conversation that it takes as a whole."""
    try:
        prompt = coder.render(chat.messages[:index], chat.tools, prompt=True)
        return Answer(index, prompt, coder.render(chat.messages[: index + 1], chat.tools, prompt=False))
    except InputError:
        return None


def _by_last_prompt(coder: Coder, chat: ChatLine, whole: str, prompt: str, notes: Counter[str]) -> Rendered:
    """Where the template writes even the last question otherwise once it is answered: its prompt, and the answer that
    the whole conversation has after the end of it. Without that end there (a prompt that opens a thinking section which
    answers do not have) what is learned begins where both part."""
    *earlier, last = chat.answers
    anchor, same = prompt[-_ANCHOR:], common(prompt, whole)
    searched = max(0, same - len(anchor))
    if prompt and whole.count(anchor, searched) == 1:
        joined = prompt + whole[whole.index(anchor, searched) + len(anchor) :]
        return Rendered(chat, joined, (Answer(last, prompt, joined),), tuple(earlier))
    before = coder.render(chat.messages[:last], chat.tools, prompt=False)
    if not before or not whole.startswith(before) or not prompt.startswith(before):
        raise InputError("the chat template writes the question otherwise once it is answered")
    notes["parted"] += 1
    return Rendered(chat, whole, (Answer(last, prompt, whole),), tuple(earlier), parted=True)


def _encoded(coder: Coder, texts: Sequence[str]) -> Iterator[list[int]]:
    """The tokens of each of `texts`; what is the same (a whole conversation is the end of its last answer) once."""
    distinct = list(dict.fromkeys(texts))
    found = dict(zip(distinct, coder.encode_rendered(distinct), strict=True))
    return (found[text] for text in texts)


def _texts(one: Rendered) -> Iterator[str]:
    yield one.whole
    for answer in one.answers:
        yield answer.prompt
        yield answer.end


def _example(
    coder: Coder, one: Rendered, encoded: Iterator[list[int]], notes: Counter[str]
) -> tuple[Example | None, list[int]]:
    """The example of a conversation, None where nothing is learned, and the indices of answers that are rewritten.
    Takes the tokens of `_texts` from `encoded`."""
    tokens = [next(encoded) for _ in _texts(one)]
    if not one.parted and any(common(tokens[0], prompt) < len(prompt) for prompt in tokens[1::2]):
        notes["merged"] += 1
        tokens = coder.encode_cut(list(_texts(one)), [len(answer.prompt) for answer in one.answers])
    whole = tokens[0]
    learned = [False] * len(whole)
    rewritten, stop = list(one.rewritten), 0
    for answer, prompt, end in zip(one.answers, tokens[1::2], tokens[2::2], strict=True):
        has_end = one.whole.startswith(answer.end)
        span = _span(whole, end, start := common(whole, prompt), coder.ends, whole_has_end=has_end)
        if span is None:
            rewritten.append(answer.index)
            continue
        stop = span
        learned[start:stop] = [True] * (stop - start)
    if not stop:
        return None, []
    ids = whole[:stop]
    if ids[-1] not in coder.ends:
        notes["unended"] += 1
        ids = [*ids, coder.end]
    return Example.of(ids, [*learned[:stop], True][: len(ids)], one.chat.line), rewritten


def _span(
    whole: Sequence[int], end: Sequence[int], start: int, ends: frozenset[int], *, whole_has_end: bool
) -> int | None:
    """Where the answer that begins at `start` stops: after the token that ends it, where `end` has one. None where the
    whole conversation has other tokens there."""
    stop = next((at + 1 for at in range(start, len(end)) if end[at] in ends), len(end))
    if whole_has_end:  # without a token that ends it, the last one may be one with what follows
        stop = min(stop, common(whole, end))
    if stop <= start or whole[start:stop] != end[start:stop]:
        return None
    unended = end[stop - 1] not in ends and stop < len(whole) and whole[stop] in ends
    return stop + unended  # a template's mark may leave the end out


def common(one: Sequence[T], other: Sequence[T]) -> int:
    """How many tokens, or characters, both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])
