"""Excerpts decoded by a scripted engine, whose token at place i of all that is fed is heard from 0.24 i seconds on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_engine import (
    DE,
    EN,
    END,
    NO_SPEECH,
    NO_STAMPS,
    PREVIOUS,
    START,
    TOKENS,
    TRANSCRIBE,
    TRANSLATE,
    Float,
    Script,
    ScriptedEngine,
    saying,
)

from sottovoce.decoding.grammar import Tokens
from sottovoce.streaming.listener import Excerpt, Hypothesis, Listener
from sottovoce.tokens import TokenTable
from sottovoce.transcriber import Transcriber

RATE = 16_000
LEAD = 0.1  # seconds of silence before every excerpt
PROMPT = [START, EN, TRANSCRIBE, NO_STAMPS]
A, B, C, D, E, X, DOT = range(7)
TABLE = TokenTable([b" alpha", b" bravo", b" charlie", b" delta", b" echo", b"x", b".", b" foxtrot", b" ", b"#"], END)


def excerpt(seconds: float = 6.0, start: float = 0.0, **more: Any) -> Excerpt:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    return Excerpt(samples, round(start * RATE), **more)


def of(script: Script, tokens: Tokens = TOKENS, task: str = "transcribe") -> tuple[Listener, ScriptedEngine]:
    engine = ScriptedEngine(script)
    return Listener(engine, tokens, TABLE, task), engine


def hear(
    text: Sequence[int], heard: Excerpt, sure: float = 12.0, language: str | None = "en", tokens: Tokens = TOKENS
) -> Hypothesis:
    """What is made of an excerpt in which the model hears `text`, settled tokens included."""
    listener, _ = of(lambda clip, fed: saying(text, fed, sure), tokens)
    return listener.hear(heard, language)


def texts(hypothesis: Hypothesis) -> list[str]:
    return [one.word.word for one in hypothesis.words]


# -- words ---------------------------------------------------------------------------------------------------------


def test_words_come_with_their_tokens_text_and_probability() -> None:
    found = hear([A, B, X, C, DOT], excerpt())
    assert [(one.word.word, one.tokens) for one in found.words] == [
        (" alpha", (A,)),
        (" bravox", (B, X)),
        (" charlie.", (C, DOT)),
    ]
    assert all(0.9 < one.word.probability <= 1 for one in found.words)
    assert (found.language, found.looped, found.languages) == ("en", False, None)


def test_times_are_those_of_the_stream_where_the_heads_look() -> None:
    found = hear([A, B, C, D], excerpt(start=40.0))
    first = len(PROMPT) - 1  # the place that predicts the first word
    for number, one in enumerate(found.words):
        expected = 40.0 + (first + number) * 0.24 - LEAD if number else 40.0
        assert one.word.start == pytest.approx(expected, abs=0.05)
        assert one.word.end == pytest.approx(40.0 + (first + number + 1) * 0.24 - LEAD, abs=0.05)


@pytest.mark.parametrize("seconds", [0.2, 0.3, 1.0, 6.0])
def test_times_lie_in_the_excerpt_and_never_go_back(seconds: float) -> None:
    found = hear([A, B, C, D, E], excerpt(seconds, start=7.0))
    times = [time for one in found.words for time in (one.word.start, one.word.end)]
    assert times and times == sorted(times) and times[0] >= 7.0 and times[-1] <= round(7.0 + seconds, 3)


def test_the_encoder_hears_a_little_silence_and_then_the_excerpt() -> None:
    listener, engine = of(lambda clip, fed: saying([A], fed))
    heard = excerpt(2.0)
    listener.hear(heard, "en")
    ((clip,),) = engine.started
    lead = round(LEAD * RATE)
    assert not clip[:lead].any()
    np.testing.assert_array_equal(clip[lead:], heard.samples)


# -- what is settled -----------------------------------------------------------------------------------------------


def test_settled_tokens_are_fed_and_not_returned() -> None:
    prompts: list[list[int]] = []

    def script(clip: Float, fed: Sequence[int]) -> Float:
        prompts.append(list(fed))
        return saying([A, B, C, D], fed)

    listener, _ = of(script)
    found = listener.hear(excerpt(settled=(A, B)), "en")
    assert texts(found) == [" charlie", " delta"]
    assert [*PROMPT, A, B] in prompts and [*PROMPT, A] not in prompts


def test_times_of_words_after_settled_ones_are_their_own() -> None:
    alone, after = hear([A, B, C, D], excerpt()), hear([A, B, C, D], excerpt(settled=(A, B)))
    spans = [(one.word.start, one.word.end) for one in alone.words]
    assert [(one.word.start, one.word.end) for one in after.words] == spans[2:]


def test_a_settled_word_does_not_grow() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([A, X, B], fed)
        logits[C] = 5.0  # what is second best
        return logits

    listener, _ = of(script)
    assert texts(listener.hear(excerpt(settled=(A,)), "en"))[0] == " charlie"
    assert texts(listener.hear(excerpt(), "en"))[0] == " alphax", "an unsettled one does"


def test_nothing_may_follow_what_is_settled_and_something_must_where_nothing_is() -> None:
    assert hear([A, B], excerpt(settled=(A, B))).words == ()
    assert len(hear([], excerpt()).words) == 1, "the grammar does not let a transcript begin with its end"


def test_in_a_script_without_spaces_anything_may_follow() -> None:
    tokens = replace(TOKENS, languages={"en": EN, "zh": DE})
    found = hear([A, X, X], excerpt(settled=(A,)), language="zh", tokens=tokens)
    assert "".join(texts(found)) == "xx"


# -- what is doubted -----------------------------------------------------------------------------------------------


def silent(sure: float) -> Script:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([A, B, C], fed, sure)
        if fed[-1] == START:
            logits[NO_SPEECH] = 30.0
        return logits

    return script


def test_where_the_model_doubts_that_anybody_speaks_there_are_no_words() -> None:
    assert of(silent(0.5))[0].hear(excerpt(), "en").words == ()
    assert of(silent(12.0))[0].hear(excerpt(), "en").words, "unless it is sure of them"
    assert hear([A, B, C], excerpt(), sure=0.5).words, "doubtful words alone are no silence"


def test_text_that_nobody_says_so_fast_is_no_text() -> None:
    fast = [token for _ in range(3) for token in (A, C, B, E, D)]
    assert hear(fast, excerpt(1.0)).words == ()
    assert len(hear(fast, excerpt(6.0)).words) == 15


def test_how_fast_it_was_said_is_judged_by_the_audio_that_is_open() -> None:
    fast = [token for _ in range(3) for token in (A, C, B, E, D)]
    assert hear(fast, excerpt(6.0, open_from=5 * RATE)).words == ()
    assert hear(fast, excerpt(6.0, start=30.0, open_from=5 * RATE)).words


def test_a_loop_is_cut_after_its_first_time_round() -> None:
    found = hear([D, E, *[A, B, C] * 20], excerpt(15.0))
    assert found.looped and texts(found) == [" delta", " echo", " alpha", " bravo", " charlie"]


def test_saying_a_word_a_few_times_is_no_loop() -> None:
    found = hear([A, A, A, B], excerpt())
    assert not found.looped and len(found.words) == 4


def test_text_without_end_stops_at_what_can_be_said_in_the_time() -> None:
    random = [int(token) for token in np.random.default_rng(0).integers(0, 5, 400)]
    tokens: list[int] = []

    def script(clip: Float, fed: Sequence[int]) -> Float:
        tokens.append(fed[-1])
        return saying(random, fed)

    heard = excerpt(2.0)
    of(script)[0].hear(heard, "en")
    assert tokens.count(NO_STAMPS) == 1 and len([one for one in tokens if one < END]) == heard.most_tokens - 1


# -- attention -----------------------------------------------------------------------------------------------------


def rows_of(monkeypatch: pytest.MonkeyPatch, text: Sequence[int], heard: Excerpt) -> tuple[np.ndarray, Hypothesis]:
    """Where each row of the attention that words are timed by looks: the place of what was fed, by number."""
    import sottovoce.streaming.listener as module

    seen: list[np.ndarray] = []
    times = module.token_times

    def watched(attention: Float, frames: int) -> Any:
        seen.append(attention[0].argmax(axis=-1) // 12)
        return times(attention, frames)

    monkeypatch.setattr(module, "token_times", watched)
    found = hear(text, heard)
    (only,) = seen
    return only, found


@pytest.mark.parametrize("settled", [(), (A,), (A, B)])
@pytest.mark.parametrize("previous", [(), (C, D)])
def test_there_is_a_row_for_every_token_and_one_for_the_end(
    monkeypatch: pytest.MonkeyPatch, settled: tuple[int, ...], previous: tuple[int, ...]
) -> None:
    rows, found = rows_of(monkeypatch, [A, B, C, D, E], excerpt(settled=settled, previous=previous))
    first = len(PROMPT) - 1 + (len(previous) + 1 if previous else 0)
    assert rows.tolist() == list(range(first, first + 6))
    assert len(found.words) == 5 - len(settled)


def test_a_loop_that_is_cut_has_no_rows_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found = rows_of(monkeypatch, [D, *[A, B, C] * 20], excerpt(15.0))
    assert found.looped and rows.tolist() == list(range(3, 3 + 5))


def test_text_that_is_cut_off_has_a_row_for_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than its time allows, yet of so few letters that it is not called too fast.
    text = [int(token) for token in np.random.default_rng(3).choice([X, DOT], 400)]
    heard = excerpt(0.4)
    rows, found = rows_of(monkeypatch, [A, *text], heard)
    assert len(rows) == heard.most_tokens + 1
    assert sum(len(one.tokens) for one in found.words) == heard.most_tokens


# -- language and prompt -------------------------------------------------------------------------------------------


def prompts_of(heard: Excerpt, language: str | None, tokens: Tokens = TOKENS, task: str = "transcribe") -> list[int]:
    """All that was fed when the first word was asked for."""
    fed_first: list[list[int]] = []

    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([A], fed)
        logits[DE] = 5.0
        if fed[-1] == NO_STAMPS:
            fed_first.append(list(fed))
        return logits

    of(script, tokens, task)[0].hear(heard, language)
    return fed_first[0]


def test_the_language_is_heard_where_it_is_not_given() -> None:
    def script(clip: Float, fed: Sequence[int]) -> Float:
        logits = saying([A], fed)
        logits[DE] = 3.0
        return logits

    found = of(script)[0].hear(excerpt(), None)
    assert found.language == "de" and found.languages is not None
    assert found.languages == pytest.approx({"de": np.exp(3) / (np.exp(3) + 1), "en": 1 / (np.exp(3) + 1)})
    assert texts(found) == [" alpha"]


def test_the_prompt_names_language_and_task() -> None:
    assert prompts_of(excerpt(), "en") == PROMPT
    assert prompts_of(excerpt(), None) == [START, DE, TRANSCRIBE, NO_STAMPS]
    assert prompts_of(excerpt(), "en", task="translate") == [START, EN, TRANSLATE, NO_STAMPS]


def test_a_model_of_one_language_is_not_asked_for_it() -> None:
    tokens = replace(TOKENS, languages={}, translate=None, transcribe=None)
    assert prompts_of(excerpt(), None, tokens) == [START, NO_STAMPS]
    found = hear([A], excerpt(), language=None, tokens=tokens)
    assert (found.language, found.languages) == ("en", None)


def test_earlier_text_is_fed_before_the_beginning() -> None:
    assert prompts_of(excerpt(previous=(C, D)), "en") == [PREVIOUS, C, D, *PROMPT]


def test_however_long_the_prompt_and_the_excerpt_the_models_context_suffices() -> None:
    random = np.random.default_rng(0)
    endless = [int(token) for token in random.choice([X, DOT, A, B], 500)]
    for previous, settled, seconds in ((500, 0, 2.0), (500, 100, 28.0), (0, 0, 28.0), (60, 200, 29.0), (0, 300, 29.0)):
        heard = excerpt(seconds, previous=[C, D] * (previous // 2), settled=endless[:settled])
        assert isinstance(hear(endless, heard), Hypothesis), "and not an EngineError"


def test_of_a_prompt_that_is_too_long_the_newest_text_is_kept() -> None:
    fed = prompts_of(excerpt(2.0, previous=[*[C] * 500, A, B]), "en")
    assert fed[0] == PREVIOUS and fed[-6:] == [A, B, *PROMPT] and len(fed) > 150


# -- a real engine -------------------------------------------------------------------------------------------------


def test_over_a_real_engine_languages_are_weighed_and_babble_is_told_from_speech(random_bundle: Path) -> None:
    """A random model says one token over and over."""
    with Transcriber(random_bundle, threads=1) as transcriber:
        ready = transcriber._ready
        listener = Listener(ready.engine, ready.tokens, ready.table, "transcribe")
        found = listener.hear(excerpt(2.0, start=3.0), None)
        assert found.looped and found.words == ()
        assert found.languages is not None and len(found.languages) == 99
        assert found.language == next(iter(found.languages))


@pytest.mark.weights
def test_over_real_speech_what_is_settled_is_continued_with_the_same_words_and_times(tiny_bundle: Path) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    clip = next(clip for clip in builtin_set().clips if clip.name == "beckett-06.10-09.96.wav")
    heard = Excerpt(load_audio(clip.file), 5 * RATE)
    with Transcriber(tiny_bundle, threads=2) as transcriber:
        ready = transcriber._ready
        listener = Listener(ready.engine, ready.tokens, ready.table, "transcribe")
        whole = listener.hear(heard, "en").words
        assert [one.word.word.strip(" .,").lower() for one in whole] == ["fail", "again", "fail", "better"]
        settled = [token for one in whole[:2] for token in one.tokens]
        rest = listener.hear(replace(heard, settled=settled, open_from=round(whole[1].word.end * RATE)), "en").words
    assert [one.tokens for one in rest] == [one.tokens for one in whole[2:]]
    for again, before in zip(rest, whole[2:], strict=True):
        assert again.word.start == pytest.approx(before.word.start, abs=0.1)
        assert again.word.end == pytest.approx(before.word.end, abs=0.1)
