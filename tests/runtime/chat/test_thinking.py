import random

import pytest

from sottovoce.chat.thinking import ThinkingSplit, ThinkingTags, opens_thinking, tags_of

TAGS = ThinkingTags("<think>", "</think>")


def split(
    text: str, *, open_already: bool = False, tags: ThinkingTags | None = TAGS, seed: int | None = None
) -> tuple[str, str]:
    """(text, reasoning) of a stream cut into single characters, or at random."""
    splitter, generator = ThinkingSplit(tags, open_already), random.Random(seed)
    shown, reasoning = [], []
    at = 0
    while at < len(text):
        size = 1 if seed is None else generator.randint(1, 9)
        now, thought = splitter.push(text[at : at + size])
        shown.append(now)
        reasoning.append(thought)
        at += size
    now, thought = splitter.finish()
    return "".join([*shown, now]), "".join([*reasoning, thought])


@pytest.mark.parametrize("seed", [None, *range(5)])
@pytest.mark.parametrize(
    ("stream", "text", "reasoning"),
    [
        ("<think>\nwell\n</think>\n\nFour.", "Four.", "well"),
        ("\n<think>a\n\nb</think>c\n", "c\n", "a\n\nb"),
        ("<think></think>x", "x", ""),
        ("<think>\n\n</think>\n\nx", "x", ""),
        ("<think>a</think><think>b</think>c", "c", "ab"),
        ("<think>a < b </thin k></think>c", "c", "a < b </thin k>"),
        ("Use <think> tags</think>.", "Use <think> tags</think>.", ""),
        ("<thinner>", "<thinner>", ""),
        ("<thin", "<thin", ""),
        ("  plain", "  plain", ""),
        ("\n", "\n", ""),
        ("", "", ""),
        ("<think>never closed\n", "", "never closed"),
        ("<think>half a tag </thi", "", "half a tag </thi"),
        ("<think>a</think>\n", "", "a"),
        ("<think>a</think>answer <think>b</think>", "answer <think>b</think>", "a"),
    ],
)
def test_thinking_is_separated_however_the_stream_is_cut(
    stream: str, text: str, reasoning: str, seed: int | None
) -> None:
    assert split(stream, seed=seed) == (text, reasoning)


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_a_section_that_the_prompt_opened_is_closed_by_the_answer(seed: int | None) -> None:
    assert split("well\n</think>\n\nFour.", open_already=True, seed=seed) == ("Four.", "well")
    assert split("<think>\nagain</think>x", open_already=True, seed=seed) == ("x", "<think>\nagain")


def test_half_a_tag_is_never_emitted() -> None:
    splitter = ThinkingSplit(TAGS)
    assert splitter.push("<thi") == ("", "")
    assert splitter.push("nk>so </th") == ("", "so ")
    assert splitter.push("ink>") == ("", "")
    assert splitter.push("done") == ("done", "")


def test_without_tags_everything_is_text_at_once() -> None:
    assert ThinkingSplit(None).push("<think>a") == ("<think>a", "")


def test_text_is_not_held_back_once_the_answer_began() -> None:
    splitter = ThinkingSplit(TAGS)
    assert splitter.push("Hello <") == ("Hello <", "")
    assert splitter.push("think") == ("think", "")


def test_the_tags_are_those_of_the_template() -> None:
    assert tags_of("{{ '<think>' }}") == TAGS
    assert tags_of("{{ m.content.split('</think>') }}") == TAGS
    assert tags_of("{{ '[THINK]' }}") == ThinkingTags("[THINK]", "[/THINK]")
    assert tags_of("{{ messages }}") is None


def test_a_prompt_opens_thinking_only_by_its_end() -> None:
    assert opens_thinking("<|assistant|><think>\n", TAGS)
    assert not opens_thinking("<|user|><think><|assistant|>", TAGS)
    assert not opens_thinking("<think>\n\n</think>\n\n", TAGS)
    assert not opens_thinking("<think>", None)
