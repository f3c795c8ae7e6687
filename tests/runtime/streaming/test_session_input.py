"""Sessions over a scripted listener: audio in chunks of every kind, gaps, the end, slow machines and languages."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.streaming.stream_case import (
    LENGTH,
    RATE,
    TALK,
    Float,
    Script,
    audio_of,
    check,
    cut,
    live,
    names,
    partials_of,
    run,
    said,
    session_of,
    texts_of,
    words_of,
)

from sottovoce.errors import AudioError, EngineError, InputError
from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.events import AudioDropped, Committed, SpeechEnded, SpeechStarted
from sottovoce.streaming.listener import Excerpt, Hypothesis
from sottovoce.types import Word

# -- chunks of every kind ------------------------------------------------------------------------------------------

SHORT = [*said(4, 0.4), *said(3, 4.6, first=4)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 17, 160, 511, 512, 513, 1600, 5000, 40_000]), min_size=1, max_size=6))
def test_the_committed_words_are_the_same_in_chunks_of_any_size(sizes: list[int]) -> None:
    audio = audio_of(SHORT, 7.0)
    sizes = [*sizes, 300] if sum(sizes) < 300 else sizes
    listener = Script(SHORT, audio)
    events = run(session_of(listener), cut(audio, *sizes))
    check(events)
    assert words_of(events) == SHORT


def test_samples_that_come_one_by_one_are_heard_as_any_others() -> None:
    script = said(4, 0.4)
    audio = audio_of(script, 2.4)
    events, listener = live(audio, script, size=1)
    check(events)
    assert words_of(events) == script
    assert len(listener.sizes) <= 2.4 / 0.3 + 2, "steps are counted by audio, not by chunks"


def test_empty_chunks_change_nothing() -> None:
    audio = audio_of(SHORT, 7.0)
    empty = np.zeros(0, np.float32)
    session = session_of(Script(SHORT, audio))
    events = run(session, [empty, *[one for chunk in cut(audio, 1600) for one in (chunk, empty, empty)], empty])
    check(events)
    assert words_of(events) == SHORT and session.time == 7.0


def test_ten_minutes_in_one_chunk_are_heard_in_order_and_within_bounds() -> None:
    script: list[Word] = []
    for minute in range(10):
        script += said(120, 60 * minute + 1.0, first=len(script))  # 36 s of speech, then silence
    audio = audio_of(script, 600.0)
    events, listener = live(audio, script, size=audio.size)
    check(events)
    assert words_of(events) == script
    assert max(listener.sizes) <= 15.1 * RATE
    # No step is made for audio that is long past: only where the window is full or speech ends.
    assert len(listener.sizes) <= 10 * 8


def test_unsettled_words_of_a_long_chunk_are_shown_once() -> None:
    script = said(30, 0.5)
    audio = audio_of(script, 9.0)
    session = session_of(Script(script, audio))
    assert len(partials_of(session.push(audio))) == 1


def test_no_step_is_made_for_a_pause_that_is_long_past() -> None:
    script = [word for i in range(8) for word in said(3, 0.5 + 1.3 * i, first=3 * i)]
    audio = audio_of(script, 11.5)
    events, listener = live(audio, script, size=audio.size, end_of_speech=1.0)
    assert words_of(events) == script and len(listener.sizes) <= 2
    _, listener = live(audio, script, size=800, end_of_speech=1.0)
    assert len(listener.sizes) > 8, "as it comes, there is one for each"


def test_another_rate_and_integers_are_heard_as_well() -> None:
    audio = audio_of(SHORT, 7.0)
    chunks = [AudioChunk((np.repeat(chunk, 2) * 32767).astype(np.int16), 32_000) for chunk in cut(audio, 1600)]
    session = session_of(Script(SHORT))
    events = run(session, chunks)
    check(events)
    assert texts_of(events) == names(SHORT) and session.time == pytest.approx(7.0, abs=1e-3)


def test_the_rate_of_plain_arrays_is_an_argument() -> None:
    audio = np.repeat(audio_of(SHORT, 7.0), 3)
    session = session_of(Script(SHORT), sample_rate=48_000)
    assert texts_of(run(session, cut(audio, 4800))) == names(SHORT)
    assert session.time == pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("size", [1600, 7 * RATE])
def test_a_sample_that_is_no_number_is_an_error_and_what_came_before_is_kept(size: int) -> None:
    script = said(20, 0.4)
    audio = audio_of(script, 7.0)
    broken = audio.copy()
    broken[round(6.5 * RATE) + 7 :] = np.nan
    session = session_of(Script(script, audio))
    events = []
    with pytest.raises(AudioError, match=r"6\.500 s"):
        for chunk in cut(broken, size):
            for event in session.push(chunk):
                events.append(event)
    events += session.finish()
    check(events)
    assert words_of(events) == script, "the last word ended before the fault"
    assert session.time >= 6.4


# -- gaps ----------------------------------------------------------------------------------------------------------


def gapped(script: list[Word], audio: Float, at: float, seconds: float) -> list[Float | AudioGap]:
    """The audio in chunks, of which `seconds` from `at` on are lost."""
    first, last = round(at * RATE), round((at + seconds) * RATE)
    return [*cut(audio[:first], 1600), AudioGap(seconds), *cut(audio[last:], 1600)]


def test_a_gap_settles_what_came_before_and_nothing_is_repeated_after_it() -> None:
    script = said(40, 0.5)
    audio = audio_of(script, 14.0)
    session = session_of(Script(script, audio))
    events = run(session, gapped(script, audio, 4.0, 3.0))
    check(events)
    place = events.index(AudioDropped(4.0, 7.0))
    assert isinstance(events[place - 1], SpeechEnded) and isinstance(events[place + 1], SpeechStarted)
    before, after = texts_of(events[:place]), texts_of(events[place:])
    assert before[:11] == names(script)[:11] and len(before) <= 12
    assert after[-17:] == names(script)[-17:] and not set(before) & set(after)
    assert words_of(events[place:])[-1] == script[-1], "times go on behind the gap"
    assert session.time == 14.0


def test_a_gap_in_silence_is_reported_and_ends_nothing() -> None:
    audio = audio_of([], 5.0)
    session = session_of(Script([]))
    assert run(session, gapped([], audio, 2.0, 1.5)) == [AudioDropped(2.0, 3.5)]
    assert session.time == 5.0


def test_a_gap_right_after_speech_begins_the_window_anew() -> None:
    script = [*said(4, 0.5), *said(4, 3.2, first=4)]
    audio = audio_of(script, 6.0)
    listener = Script(script, audio)
    events = run(session_of(listener), gapped(script, audio, 2.5, 0.5))
    assert words_of(events) == script
    after = [excerpt for excerpt in listener.excerpts if excerpt.start >= 3 * RATE]
    assert after and after[0].settled == [] and all(0 not in excerpt.settled for excerpt in after)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_gap_without_a_length_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="gap"):
        list(session_of(Script([])).push(AudioGap(seconds)))


# -- the end -------------------------------------------------------------------------------------------------------


def test_finishing_commits_what_is_open() -> None:
    script = said(8, 0.5)
    audio = audio_of(script, 2.9)  # the last word has just been said
    session = session_of(Script(script, audio))
    events = [event for chunk in cut(audio, 1600) for event in session.push(chunk)]
    assert texts_of(events) != names(script)
    rest = list(session.finish())
    check([*events, *rest])
    assert texts_of([*events, *rest]) == names(script) and isinstance(rest[-1], SpeechEnded)
    assert list(session.finish()) == [], "there is nothing more"


def test_finishing_flushes_the_resampler() -> None:
    session = session_of(Script([]), sample_rate=44_100)
    run(session, [np.zeros(44_100, np.float32)])
    assert session.time == 1.0


def test_a_closed_session_holds_no_audio_and_takes_none() -> None:
    script = said(8, 0.5)
    audio = audio_of(script, 2.9)
    session = session_of(Script(script, audio))
    for chunk in cut(audio, 1600):
        list(session.push(chunk))
    session.close()
    session.close()
    assert session._window.samples.size == 0 and session._window._store.nbytes < 1000
    assert session._hypothesis is None and session._utterance.tokens == []
    with pytest.raises(InputError, match="closed"):
        list(session.push(audio))
    assert list(session.finish()) == []


def test_an_engine_that_fails_is_not_hidden() -> None:
    def fails(excerpt: Excerpt, hypothesis: Hypothesis) -> Hypothesis:
        raise EngineError("onnxruntime: out of memory")

    audio = audio_of(TALK, LENGTH)
    with pytest.raises(EngineError, match="out of memory"):
        run(session_of(Script(TALK, mangle=fails)), cut(audio, 1600))


# -- a slow machine ------------------------------------------------------------------------------------------------


def slowly(cost: float, late: bool) -> tuple[list[str], list[str], int]:
    """Words, partials and steps of 24 s of speech where each step takes `cost` seconds; `late` says whether the source
    hands over what came during a step as one chunk, as a live one does."""
    script = said(80, 0.5)
    audio = audio_of(script, 26.0)
    listener = Script(script, audio, cost=cost)
    session = session_of(listener)
    events, at = [], 0
    while at < audio.size:
        spent = listener.now
        arrived = 1600
        events += session.push(audio[at : at + arrived])
        at += arrived
        arrived = round((listener.now - spent) * RATE)
        if late and arrived:
            events += session.push(audio[at : at + arrived])
            at += arrived
    events += session.finish()
    check(events)
    assert words_of(events) == script
    return texts_of(events), partials_of(events), session.steps


@pytest.mark.parametrize("late", [False, True])
def test_a_slow_machine_makes_fewer_steps_sheds_partials_and_loses_no_word(late: bool) -> None:
    words, partials, steps = slowly(0.0, late)
    slow_words, slow_partials, slow_steps = slowly(2.0, late)
    assert slow_words == words
    assert slow_steps <= 26 / 2.0 + 3 and slow_steps < steps / 3
    assert 0 < len(slow_partials) < len(partials) / 2


def test_a_step_is_made_when_its_audio_is_there_and_not_before() -> None:
    script = said(40, 0.5)
    audio = audio_of(script, 12.4)
    counts = {}
    for step in (0.3, 1.0):
        _, listener = live(audio, script, size=160, step=step, hold_back=0.2)
        ends = [(one.start + size) / RATE for one, size in zip(listener.excerpts, listener.sizes, strict=True)]
        assert all(after - before >= step - 1e-6 for before, after in pairwise(ends) if after < 12)
        counts[step] = len(ends)
    assert counts[0.3] > 2.5 * counts[1.0]


# -- languages -----------------------------------------------------------------------------------------------------


class Polyglot:
    """A script that is heard in another language from some time on."""

    def __init__(self, script: list[Word], language_at: Callable[[float], dict[str, float]]) -> None:
        self.script, self.language_at = Script(script), language_at
        self.asked: list[str | None] = []

    def clock(self) -> float:
        return 0.0

    def hear(self, excerpt: Excerpt, language: str | None) -> Hypothesis:
        self.asked.append(language)
        heard = self.script.hear(excerpt, language)
        if language is not None:
            return heard
        shares = self.language_at((excerpt.start + self.script.sizes[-1]) / RATE)
        return replace(heard, language=max(shares, key=lambda code: shares[code]), languages=shares)


def languages_of(script: list[Word], language_at: Callable[[float], dict[str, float]]) -> tuple[list[str], Polyglot]:
    listener = Polyglot(script, language_at)
    events = run(session_of(listener), cut(audio_of(script, script[-1].end + 3), 1600))  # type: ignore[arg-type]
    assert words_of(events) == script
    return [event.language for event in events if isinstance(event, Committed)], listener


def test_the_language_is_heard_until_something_is_settled_in_it_and_anew_after_silence() -> None:
    script = [*said(6, 0.5), *said(6, 8.0, first=6)]
    found, listener = languages_of(script, lambda t: {"en": 0.9, "de": 0.1} if t < 5 else {"de": 0.95, "en": 0.05})
    assert found == ["en"] * found.count("en") + ["de"] * found.count("de") and set(found) == {"en", "de"}
    asked = listener.asked
    assert asked[0] is None and "en" in asked and None in asked[asked.index("en") :] and "de" in asked


def test_a_doubtful_language_after_a_pause_is_heard_as_the_one_before_it() -> None:
    script = [*said(6, 0.5), *said(3, 8.0, first=6)]
    found, listener = languages_of(script, lambda t: {"en": 0.95, "de": 0.05} if t < 5 else {"de": 0.6, "en": 0.4})
    assert set(found) == {"en"}
    second = listener.asked[listener.asked.index(None, listener.asked.index("en")) :]
    assert second[:2] == [None, "en"], "heard again in the likelier language"


def test_a_language_that_is_given_is_never_asked_for() -> None:
    script = said(6, 0.5)
    listener = Polyglot(script, lambda t: {"en": 1.0})
    session = session_of(listener, language="de")  # type: ignore[arg-type]
    events = run(session, cut(audio_of(script, 4.0), 1600))
    assert set(listener.asked) == {"de"} and {e.language for e in events if isinstance(e, Committed)} == {"de"}
