"""Live transcription as a user has it: whisper-tiny.en over real recordings, and a random Whisper for the rest."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from tests.runtime.streaming.stream_case import Float, Loudness, audio_of, check, cut, partials_of, said, words_of

from sottovoce.audio import load_audio
from sottovoce.errors import AudioError, BundleError, InputError
from sottovoce.streaming.chunks import AudioChunk, Chunk
from sottovoce.streaming.events import Committed, Event, SpeechEnded, SpeechStarted
from sottovoce.streaming.options import StreamOptions
from sottovoce.transcriber import Transcriber

BECKETT = ["ever", "tried", "ever", "failed", "no", "matter", "try", "again", "fail", "again", "fail", "better"]
RATE = 16_000

weights = pytest.mark.weights


@cache
def recording(name: str) -> Float:
    """The clips of the built-in set whose names begin so, joined."""
    from sottovoce_compiler.report.builtin import builtin_set

    return np.concatenate([load_audio(clip.file) for clip in builtin_set().clips if clip.name.startswith(name)])


def silence(seconds: float) -> Float:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Iterator[Transcriber]:
    with Transcriber(tiny_bundle, threads=2) as transcriber:
        yield transcriber


@pytest.fixture(scope="module")
def mute(random_bundle: Path) -> Iterator[Transcriber]:
    """A random model, which has no words for anything, with loudness as voice activity."""
    with Transcriber(random_bundle, threads=2) as transcriber:
        transcriber._loaded = replace(transcriber._ready, vad=Loudness())
        yield transcriber


def still() -> float:
    """A clock by which steps take no time, so that a slow machine makes the same ones."""
    return 0.0


def spoken(events: list[Event]) -> list[str]:
    return re.findall(r"[a-z']+", "".join(word.word for word in words_of(events)).lower())


def live(transcriber: Transcriber, audio: Float, size: int = 4800, **options: Any) -> list[Event]:
    events = list(transcriber.stream(cut(audio, size), clock=still, **options))
    check(events)
    return events


# -- real speech ---------------------------------------------------------------------------------------------------


@weights
@pytest.mark.parametrize("size", [3200, 16_000, 10 * RATE])
def test_a_real_recording_gives_the_right_words_in_any_chunks(tiny: Transcriber, size: int) -> None:
    events = live(tiny, recording("beckett"), size)
    # A chunk's size moves the steps, and a word said twice may be heard otherwise; none is lost or repeated.
    assert jiwer.wer(" ".join(BECKETT), " ".join(spoken(events))) <= 2 / len(BECKETT)
    assert spoken(events)[0] == "ever", "the first syllable is there"


@weights
def test_words_lie_where_they_were_said(tiny: Transcriber) -> None:
    lead = 3.0
    words = words_of(live(tiny, np.concatenate([silence(lead), recording("beckett")])))
    assert [re.sub(r"\W", "", word.word).lower() for word in words] == BECKETT
    # The phrases were cut by ear, in the pauses between them: every word lies within its own.
    edges, counts, at = [0.0, 1.53, 3.1, 4.48, 6.1, 9.96], [2, 2, 2, 2, 4], 0
    for (start, end), count in zip(pairwise(edges), counts, strict=True):
        for word in words[at : at + count]:
            assert start + lead - 0.2 <= word.start <= word.end <= end + lead + 0.2
        at += count


@weights
def test_a_stream_is_nearly_as_good_as_the_whole_recording_at_once(tiny: Transcriber) -> None:
    audio = recording("two-cities")
    segments, _ = tiny.transcribe(audio)
    whole = re.findall(r"[a-z']+", "".join(segment.text for segment in segments).lower())
    events = live(tiny, audio, 8000)
    assert jiwer.wer(" ".join(whole), " ".join(spoken(events))) <= 0.06
    commits = [event for event in events if isinstance(event, Committed)]
    assert len(commits) > 20, "words are committed as they are said"
    assert {event.language for event in commits} == {"en"} and len(partials_of(events)) > 20


@weights
def test_what_was_committed_first_is_what_was_said_first(tiny: Transcriber) -> None:
    """Committed text is final: a stream that is broken off has the beginning of the one that is not."""
    audio = recording("beckett")
    whole = words_of(live(tiny, audio))
    session = tiny.session(clock=still)
    begun = words_of([event for chunk in cut(audio[: 7 * RATE], 4800) for event in session.push(chunk)])
    session.close()
    assert 0 < len(begun) < len(whole) and begun == whole[: len(begun)]


@weights
@pytest.mark.parametrize("name", ["silence", "white-noise", "pink-noise", "mains-hum", "clicks"])
def test_sound_without_speech_has_no_words_and_costs_no_step(tiny: Transcriber, name: str) -> None:
    session = tiny.session()
    events = [event for chunk in cut(recording(name), 1600) for event in session.push(chunk)]
    assert [*events, *session.finish()] == [] and session.steps == 0


@weights
def test_other_rates_types_and_channels_are_heard_alike(tiny: Transcriber) -> None:
    audio = recording("beckett")[: 5 * RATE]
    twice = (np.repeat(audio, 2)[:, None] * [[32767, 32767]]).astype(np.int16)
    chunks = [AudioChunk(twice[at : at + 9600], 32_000) for at in range(0, len(twice), 9600)]
    assert spoken(list(tiny.stream(chunks, clock=still)))[:4] == BECKETT[:4]


@weights
def test_the_async_form_says_the_same(tiny: Transcriber) -> None:
    audio = recording("beckett-06")

    async def chunks() -> AsyncIterator[Chunk]:
        for chunk in cut(audio, 4800):
            yield chunk
            await asyncio.sleep(0)

    async def main() -> list[Event]:
        return [event async for event in tiny.astream(chunks())]

    events = asyncio.run(main())
    check(events)
    assert spoken(events) == BECKETT[-4:]


@weights
def test_a_prompt_longer_than_the_model_can_read_is_no_error(tiny: Transcriber) -> None:
    names = " ".join(f"{chr(65 + n % 26)}{chr(97 + n // 26)}rel" for n in range(400))
    events = live(tiny, recording("beckett-06"), initial_prompt=names)
    assert isinstance(events[-1], SpeechEnded)


# -- whose settings ------------------------------------------------------------------------------------------------


def test_the_bundles_own_settings_stand_between_the_users_and_the_runtimes(mute: Transcriber) -> None:
    own = Transcriber("nowhere.svb", threads=1)
    own._loaded = replace(mute._ready, stream={"step": 2.0, "hold_back": 1.5})
    found = own.stream_options(hold_back=0.1)
    assert (found.step, found.hold_back, found.window) == (2.0, 0.1, StreamOptions().window)
    audio = cut(audio_of(said(12, 0.5), 4.5), 1600)
    assert steps(own, audio) < steps(mute, audio) == steps(own, audio, step=mute.stream_options().step)


def steps(transcriber: Transcriber, audio: list[Float], **options: Any) -> int:
    session = transcriber.session(clock=still, language="zh", **options)
    for chunk in audio:
        list(session.push(chunk))
    session.close()
    return session.steps


# -- what is refused, and when -------------------------------------------------------------------------------------


def test_a_bundle_without_voice_activity_cannot_stream(random_bundle: Path) -> None:
    with Transcriber(random_bundle, threads=1) as transcriber, pytest.raises(BundleError, match="voice activity"):
        transcriber.session()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"language": "zz"}, "'zz'"),
        ({"task": "sing"}, "'sing'"),
        ({"step": 0}, "step = 0"),
        ({"beam_size": 5}, "'beam_size'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_read(
    mute: Transcriber, options: dict[str, Any], told: str
) -> None:
    def unread() -> Iterator[Chunk]:
        raise AssertionError("read")
        yield

    calls: list[Callable[[], object]] = [
        lambda: mute.session(**options),
        lambda: mute.stream(unread(), **options),
        lambda: mute.astream(unread(), **options),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(InputError, match=re.escape(told)):
            call()


def test_a_rate_that_cannot_be_used_is_refused_at_once(mute: Transcriber) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        mute.stream([], sample_rate=12)


@weights
def test_an_english_only_model_hears_english_alone(tiny: Transcriber) -> None:
    for options in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(InputError, match="English only"):
            tiny.session(**options)  # type: ignore[arg-type]


def test_a_model_without_words_for_what_it_hears_still_tells_when_somebody_spoke(mute: Transcriber) -> None:
    audio = audio_of(said(3, 0.5), 2.5)
    events = list(mute.stream(cut(audio, 1600), language="zh"))
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded]


def test_closing_the_stream_closes_its_source(mute: Transcriber) -> None:
    closed: list[bool] = []

    def source() -> Iterator[Chunk]:
        try:
            while True:
                yield audio_of(said(3, 0.2), 2.5)
        finally:
            closed.append(True)

    events = mute.stream(source())
    assert isinstance(next(events), SpeechStarted)
    events.close()
    assert closed == [True]


def test_one_transcriber_serves_a_stream_after_the_other(mute: Transcriber) -> None:
    audio = cut(audio_of(said(3, 0.5), 2.5), 1600)
    assert list(mute.stream(audio)) == list(mute.stream(audio))
