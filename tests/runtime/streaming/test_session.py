"""Sessions over a scripted listener and loudness as voice activity: what is said when, and with what audio in hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.runtime.streaming.stream_case import (
    LENGTH,
    LOUD,
    RATE,
    TALK,
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

from sottovoce.streaming.events import Committed, Partial, SpeechEnded, SpeechStarted
from sottovoce.streaming.listener import Excerpt, HeardWord, Hypothesis
from sottovoce.streaming.policy import Settling
from sottovoce.streaming.session import _PRE_ROLL
from sottovoce.types import Word

FRAME_SECONDS = 0.032


# -- what is said --------------------------------------------------------------------------------------------------


def test_speech_starts_is_shown_is_committed_and_ends_in_this_order() -> None:
    script = said(6, 0.5)
    events, _ = live(audio_of(script, 4.0), script)
    check(events)
    kinds = [type(event) for event in events]
    assert kinds[0] is SpeechStarted and kinds[-1] is SpeechEnded
    assert kinds.index(Partial) < kinds.index(Committed) < len(kinds) - 1
    assert kinds.count(Committed) > 1, "words are committed while more are being said"


def test_every_word_is_committed_once_with_its_own_times_across_utterances() -> None:
    events, _ = live(audio_of(TALK, LENGTH), TALK)
    check(events)
    assert words_of(events) == TALK
    assert [type(event) for event in events].count(SpeechStarted) == 3


def test_speech_starts_and_ends_where_it_is_loud() -> None:
    events, _ = live(audio_of(TALK, LENGTH), TALK, size=512)
    turns = [event for event in events if isinstance(event, SpeechStarted | SpeechEnded)]
    edges = [TALK[0].start, TALK[5].end, TALK[6].start, TALK[9].end, TALK[10].start, TALK[14].end]
    for turn, edge in zip(turns, edges, strict=True):
        assert turn.time == pytest.approx(edge, abs=FRAME_SECONDS + 1e-3)


def test_committed_words_are_those_that_ended_a_while_ago() -> None:
    script = said(20, 0.5)
    audio = audio_of(script, 8.0)
    session = session_of(Script(script, audio), hold_back=1.0)
    behind = []
    for chunk in cut(audio[: round(script[-1].end * RATE)], 1600):
        for event in session.push(chunk):
            if isinstance(event, Committed):
                behind.append(session.time - event.words[-1].end)
    assert len(behind) > 10 and min(behind) >= 1.0


def test_a_partial_says_what_follows_the_committed_words_and_where_it_begins() -> None:
    script = said(8, 0.5)
    starts = {word.word: word.start for word in script}
    events, _ = live(audio_of(script, 4.0), script)
    committed: list[str] = []
    for event in events:
        committed += names(list(event.words)) if isinstance(event, Committed) else []
        if isinstance(event, Partial) and event.text:
            following = names(script)[len(committed) :]
            shown = event.text.removesuffix(" part").split()
            assert [f" {word}" for word in shown] == following[: len(shown)]
            assert event.start == starts[following[0]]


def test_without_partials_only_final_text_is_said() -> None:
    events, _ = live(audio_of(TALK, LENGTH), TALK, partials=False)
    check(events)
    assert partials_of(events) == [] and texts_of(events) == names(TALK)


def test_a_partial_that_did_not_change_is_not_said_again() -> None:
    script = [Word(0.5, 4.5, " long", 0.95)]
    events, listener = live(audio_of(script, 6.0), script)
    check(events)
    assert len(listener.sizes) > 5 and len(partials_of(events)) <= 2


def test_a_partial_that_vanished_is_taken_back_with_an_empty_one() -> None:
    def forgets(excerpt: Excerpt, hypothesis: Hypothesis) -> Hypothesis:
        return hypothesis if len(listener.sizes) < 3 else replace(hypothesis, words=())

    script = said(6, 0.5)
    audio = audio_of(script, 4.0)
    listener = Script(script, audio, mangle=forgets)
    events = run(session_of(listener, hold_back=3.0), cut(audio, 1600))
    check(events)
    shown = partials_of(events)
    assert shown[0] and shown[-1] == "" and shown.count("") == 1 and texts_of(events) == []


def test_a_hypothesis_that_loops_is_shown_and_settles_nothing_until_the_speaker_stops() -> None:
    script = said(12, 0.5)
    audio = audio_of(script, 6.0)
    listener = Script(script, audio, mangle=lambda excerpt, heard: replace(heard, looped=True))
    session = session_of(listener)
    while_speaking = [event for chunk in cut(audio[: round(4.1 * RATE)], 1600) for event in session.push(chunk)]
    assert partials_of(while_speaking) and texts_of(while_speaking) == []
    rest = run(session, cut(audio[round(4.1 * RATE) :], 1600))
    assert texts_of(rest) == names(script)
    check([*while_speaking, *rest])


def test_a_word_that_comes_out_otherwise_each_time_waits_for_the_end_of_speech() -> None:
    def wavers(excerpt: Excerpt, hypothesis: Hypothesis) -> Hypothesis:
        number = len(listener.sizes)
        words = [
            replace(one, word=replace(one.word, word=f" x{number}")) if one.tokens == (5,) else one
            for one in hypothesis.words
        ]
        return replace(hypothesis, words=tuple(words))

    script = said(20, 0.5)
    audio = audio_of(script, 8.0)
    listener = Script(script, audio, mangle=wavers)
    session = session_of(listener)
    speaking = [event for chunk in cut(audio[: round(6.4 * RATE)], 1600) for event in session.push(chunk)]
    assert texts_of(speaking) == names(script)[:5]
    rest = run(session, cut(audio[round(6.4 * RATE) :], 1600))
    assert len(texts_of(rest)) == 15 and texts_of(rest)[1:] == names(script)[6:]


def test_words_are_committed_again_after_a_loop_has_passed() -> None:
    def loops_early(excerpt: Excerpt, hypothesis: Hypothesis) -> Hypothesis:
        return replace(hypothesis, looped=len(listener.sizes) < 6)

    script = said(20, 0.5)
    audio = audio_of(script, 6.6)
    listener = Script(script, audio, mangle=loops_early)
    session = session_of(listener)
    events = [event for chunk in cut(audio, 1600) for event in session.push(chunk)]
    assert texts_of(events)[:10] == names(script)[:10]


# -- with what audio -----------------------------------------------------------------------------------------------


def test_the_listener_is_given_what_comes_before_the_first_loud_frame() -> None:
    script = said(4, 3.0)
    events, listener = live(audio_of(script, 6.0), script)
    assert isinstance(events[0], SpeechStarted) and _PRE_ROLL >= 0.2
    assert listener.excerpts[0].start == round((events[0].time - _PRE_ROLL) * RATE)


def test_sound_that_gave_no_words_is_not_heard_again_with_what_follows() -> None:
    bursts = [Word(1 + i / 2, 1.3 + i / 2, " ", 0.9) for i in range(6)]
    listener = Script([])
    events = run(session_of(listener, end_of_speech=0.1), cut(audio_of(bursts, 5.0), 512))
    ends = [event.time for event in events if isinstance(event, SpeechEnded)]
    starts = sorted({excerpt.start / RATE for excerpt in listener.excerpts})
    assert len(ends) == len(starts) == 6
    assert all(start >= end - 1e-3 for end, start in zip(ends, starts[1:], strict=False))


def test_after_a_short_silence_the_window_goes_on_and_after_a_long_one_it_begins_anew() -> None:
    script = [*said(4, 1.0), *said(4, 3.4, first=4), *said(4, 9.0, first=8)]
    events, listener = live(audio_of(script, 12.0), script)
    assert words_of(events) == script
    begins = {excerpt.start / RATE: excerpt.settled for excerpt in listener.excerpts}
    assert len(begins) == 2, "one window for the first two stretches of speech"
    assert max(begins) >= 9.0 - 0.5 and tuple(begins[max(begins)])[:1] in ((), (8,))
    second = [one for one in listener.excerpts if 3.4 * RATE < one.start + one.open_from < 9 * RATE]
    assert second and all(list(one.settled)[:4] == [0, 1, 2, 3] for one in second)


def test_what_was_settled_is_given_as_settled_and_the_rest_as_open() -> None:
    script = said(20, 0.5)
    _, listener = live(audio_of(script, 8.0), script)
    for excerpt in listener.excerpts:
        if excerpt.settled:
            assert excerpt.open_from == round(script[excerpt.settled[-1]].end * RATE)
        assert excerpt.open_from >= excerpt.start
    assert any(excerpt.settled for excerpt in listener.excerpts)


@pytest.mark.parametrize("window", [5.0, 15.0, 28.0])
@pytest.mark.parametrize("size", [1600, 16_000, 90 * RATE])
def test_an_utterance_that_never_ends_is_cut_and_keeps_every_word_once(window: float, size: int) -> None:
    script = said(280, 0.5)
    audio = audio_of(script, 86.0)
    events, listener = live(audio, script, size=size, window=window)
    check(events)
    assert words_of(events) == script
    assert [type(event) for event in events].count(SpeechStarted) == 1
    assert max(listener.sizes) <= (window + FRAME_SECONDS) * RATE
    assert max(len(excerpt.settled) for excerpt in listener.excerpts) <= window / 0.3 + 1
    assert len({excerpt.start for excerpt in listener.excerpts}) > 86 / window


@pytest.mark.parametrize("silence", [0.7, 1.9, 2.0, 2.1])
@pytest.mark.parametrize("window", [5.0, 28.0])
def test_speech_with_pauses_never_makes_more_than_the_encoder_hears(window: float, silence: float) -> None:
    each = round((window - 0.4) / 0.3)  # the pause comes when the window is nearly full
    script: list[Word] = []
    for _ in range(4):
        begin = script[-1].end + silence if script else 0.5
        script += said(each, round(begin, 3), first=len(script))
    audio = audio_of(script, script[-1].end + 3)
    events, listener = live(audio, script, window=window, end_of_speech=0.1)
    assert words_of(events) == script
    assert max(listener.sizes) + 0.1 * RATE <= min(30, window + 3) * RATE


def test_sound_without_words_gives_no_text_and_is_let_go() -> None:
    noise = np.random.default_rng(1).uniform(-LOUD, LOUD, 60 * RATE).astype(np.float32)
    events, listener = live(noise, [])
    check(events)
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded]
    assert max(listener.sizes) <= 15.1 * RATE and len({one.start for one in listener.excerpts}) >= 4


def test_one_word_in_much_noise_is_neither_lost_nor_repeated() -> None:
    script = [Word(7.0, 7.5, " word", 0.95), Word(33.0, 33.4, " other", 0.95)]
    noise = np.random.default_rng(1).uniform(-LOUD, LOUD, 60 * RATE).astype(np.float32)
    events, _ = live(noise, script)
    assert words_of(events) == script


def test_a_stream_that_never_speaks_says_and_decodes_nothing_and_holds_little() -> None:
    audio = audio_of([], 90.0)
    listener = Script([], audio)
    session = session_of(listener)
    for chunk in cut(audio, 1600):
        assert list(session.push(chunk)) == []
        assert session._window.seconds <= 1.0
    assert list(session.finish()) == [] and listener.sizes == [] and session.steps == 0


def test_in_a_pause_that_is_heard_already_nothing_is_decoded() -> None:
    script = said(4, 0.5)
    audio = audio_of(script, 6.0)
    listener = Script(script, audio)
    session = session_of(listener, end_of_speech=4.0)
    events = [event for chunk in cut(audio[: 3 * RATE], 800) for event in session.push(chunk)]
    before = len(listener.sizes)
    assert texts_of(events) == names(script), "the pause settles them without being decoded again"
    events = run(session, cut(audio[3 * RATE :], 800))
    assert len(listener.sizes) == before and session.steps == before


def test_on_a_slow_machine_too_a_pause_settles_what_was_said_before_it() -> None:
    script = said(4, 0.5)
    audio = audio_of(script, 6.0)
    session = session_of(Script(script, audio, cost=3.0), end_of_speech=4.0)
    events = [
        event for chunk in cut(audio[: round((script[-1].end + 0.9) * RATE)], 800) for event in session.push(chunk)
    ]
    assert texts_of(events) == names(script)


class Watched:
    """The policy, which logs what it is told."""

    def __init__(self) -> None:
        self.inner, self.log = Settling(0.5), list[str]()

    def reset(self) -> None:
        self.log.append("reset")
        self.inner.reset()

    def add(self, words: Sequence[HeardWord]) -> None:
        self.log.append("add")
        self.inner.add(words)

    def count(self, words: Sequence[HeardWord], now: float, quiet: bool) -> int:
        return self.inner.count(words, now, quiet)

    def settle(self, count: int) -> None:
        self.log.append(f"settle {count}")
        self.inner.settle(count)


def test_the_policy_knows_of_every_hypothesis_every_settled_word_and_each_beginning() -> None:
    watched = Watched()
    listener = Script(TALK)
    events = run(session_of(listener, policy=watched), cut(audio_of(TALK, LENGTH), 1600))
    assert watched.log.count("reset") == [type(event) for event in events].count(SpeechStarted) == 3
    assert watched.log.count("add") == len(listener.sizes)
    told = [int(line.split()[1]) for line in watched.log if line.startswith("settle")]
    assert told == [len(event.words) for event in events if isinstance(event, Committed)]
