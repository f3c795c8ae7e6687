"""Conversations as examples: rendered by the model's own template, learned in the assistant's answers alone.

Where an answer begins and ends is found in two ways. A template with `{% generation %}` says it. For others the
conversation is rendered up to each answer, as it is when the model is asked, and up to its end; what is learned is what
comes after the first and ends the second, provided that the whole conversation has the same tokens there. A template
that rewrites what was said (one that drops the reasoning of earlier answers) fails that for earlier answers: they are
left out and counted, and the last one is learned. What an answer ends with is learned too, what the template writes
after that is not. Knows no file and no other kind of data.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sottovoce.chat.messages import ChatMessage
from sottovoce.chat.template import ANSWER
from sottovoce.errors import BundleError, InputError
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import ChatLine


@dataclass(frozen=True, slots=True)
class Answer:
    """Where an answer is in a conversation: after the text `prompt` the model is asked, `end` ends with its answer."""

    prompt: str
    end: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation up to its last answer. `before` is the text before that answer, where `whole` does not begin with
    its prompt; `rewritten` answers are left out."""

    line: int
    whole: str
    answers: tuple[Answer, ...]
    rewritten: int = 0
    before: str | None = None


def conversations(coder: Coder, lines: Sequence[ChatLine], faults: Faults, notes: Counter[str]) -> list[Example]:
    """An example for each line that is sound; others are added to `faults`, and what is remarkable to `notes`.

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
            rendered.append(render(coder, line))
        except (InputError, BundleError) as error:
            faults.add(line.line, str(error))
    texts = [text for one in rendered for text in _texts(one)]
    encoded = iter(coder.encode_rendered(texts))
    found = []
    for one in rendered:
        try:
            found.append(_example(coder, one, encoded, notes))
        except InputError as error:
            faults.add(one.line, str(error))
    return found


def render(coder: Coder, chat: ChatLine) -> Rendered:
    """The texts of a conversation. Raises InputError or BundleError where the template refuses them."""
    assert coder.template is not None
    messages = coder.hidden(chat.messages[: chat.answers[-1] + 1])  # nothing is learned after the last answer
    whole = coder.render(messages, chat.tools, prompt=False)
    if coder.template.marks_answers and (marked := _by_marks(coder, chat, messages, whole)):
        return marked
    return _by_prompts(coder, chat, messages, whole)


def _by_marks(coder: Coder, chat: ChatLine, messages: Sequence[ChatMessage], whole: str) -> Rendered | None:
    """By the template's own marks; None where they do not tell which message is which."""
    opening, closing = ANSWER
    text = coder.render(messages, chat.tools, prompt=False, mark_answers=True)
    parts = text.replace(closing, opening).split(opening)  # outside, inside, outside, ...
    if "".join(parts) != whole or len(parts) % 2 == 0:
        return None
    spoken = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if len(parts) // 2 != len(spoken):
        return None
    answers, at = [], 0
    for index, part in enumerate(parts):
        if index % 2 and spoken[index // 2] in chat.answers:
            begun = len(coder.answer_prompt) if part.startswith(coder.answer_prompt) else 0
            answers.append(Answer(whole[: at + begun], whole[: at + len(part)]))
        at += len(part)
    return Rendered(chat.line, whole, tuple(answers))


def _by_prompts(coder: Coder, chat: ChatLine, messages: Sequence[ChatMessage], whole: str) -> Rendered:
    last = chat.answers[-1]
    answers, rewritten = [], 0
    for index in chat.answers[:-1]:
        try:
            prompt = coder.render(messages[:index], chat.tools, prompt=True)
            end = coder.render(messages[: index + 1], chat.tools, prompt=False)
        except InputError:  # a beginning of this conversation is not one that the template takes
            rewritten += 1
            continue
        if whole.startswith(prompt):
            answers.append(Answer(prompt, end))
        else:
            rewritten += 1
    prompt = coder.render(messages[:last], chat.tools, prompt=True)
    before = None if whole.startswith(prompt) else coder.render(messages[:last], chat.tools, prompt=False)
    return Rendered(chat.line, whole, (*answers, Answer(prompt, whole)), rewritten, before)


def _texts(one: Rendered) -> Iterator[str]:
    yield one.whole
    for answer in one.answers:
        yield answer.prompt
        yield answer.end
    if one.before is not None:
        yield one.before


def _example(coder: Coder, one: Rendered, encoded: Iterator[list[int]], notes: Counter[str]) -> Example:
    """The example of a conversation; takes the tokens of its `_texts` from `encoded`."""
    whole, *rest = (next(encoded) for _ in _texts(one))
    learned = [False] * len(whole)
    rewritten, stop = one.rewritten, 0
    for index in range(len(one.answers)):
        prompt, end = rest[2 * index : 2 * index + 2]
        start = common(whole, prompt)
        if start < len(prompt):
            parted = one.before is not None and index == len(one.answers) - 1
            notes["parted" if parted else "merged"] += 1
            if parted and not common(whole, rest[-1]) == len(rest[-1]) <= start:
                raise InputError("the chat template writes the question otherwise once it is answered")
        if (span := _span(whole, end, start, coder.ends)) is None:
            rewritten += 1
            continue
        stop = span
        learned[start:stop] = [True] * (stop - start)
    notes["rewritten"] += rewritten
    if not stop:
        raise InputError("the chat template drops the answers, so that nothing is learned")
    ids = whole[:stop]
    if ids[-1] not in coder.ends:
        notes["unended"] += 1
        ids = [*ids, coder.end]
    return Example.of(ids, [*learned[:stop], True][: len(ids)], one.line)


def _span(whole: Sequence[int], end: Sequence[int], start: int, ends: frozenset[int]) -> int | None:
    """Where the answer that begins at `start` stops: after the token that ends it, where `end` has one. None where the
    whole conversation has other tokens there."""
    stop = next((at + 1 for at in range(start, len(end)) if end[at] in ends), len(end))
    if stop == start or whole[start:stop] != end[start:stop]:
        return None
    unended = end[stop - 1] not in ends and stop < len(whole) and whole[stop] in ends
    return stop + unended  # a template's mark may leave the end out


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])
