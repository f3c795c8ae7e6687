"""The whole device side over whisper-tiny.en and real recordings; over a random Whisper where words do not matter."""

import re
import weakref
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sottovoce
from sottovoce.audio import load_audio
from sottovoce.errors import AudioError, BundleError, InputError
from sottovoce.transcriber import Transcriber
from sottovoce.types import Segment, Word

BECKETT = ["ever", "tried", "ever", "failed", "no", "matter", "try", "again", "fail", "again", "fail", "better"]
SECOND = 16_000

weights = pytest.mark.weights


@cache
def clips() -> dict[str, np.ndarray]:
    """The built-in set at 16 kHz by name, in the order of the recordings."""
    from sottovoce_compiler.report.builtin import builtin_set

    return {clip.name: load_audio(clip.file) for clip in builtin_set().clips}


def joined(recording: str) -> np.ndarray:
    return np.concatenate([samples for name, samples in clips().items() if name.startswith(recording)])


def spoken(segments: list[Segment]) -> list[str]:
    return re.findall(r"[a-z']+", "".join(segment.text for segment in segments).lower())


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Iterator[Transcriber]:
    with Transcriber(tiny_bundle, threads=2) as transcriber:
        yield transcriber


@pytest.fixture(scope="module")
def random(random_bundle: Path) -> Iterator[Transcriber]:
    with Transcriber(random_bundle, threads=2) as transcriber:
        yield transcriber


def heard(transcriber: Transcriber, audio: Any, **options: Any) -> list[Segment]:
    return list(transcriber.transcribe(audio, **options)[0])


def words_of(segments: list[Segment]) -> list[Word]:
    return [word for segment in segments for word in segment.words or ()]


# -- the constructor and what it holds -----------------------------------------------------------------------------


def test_making_one_opens_nothing(tmp_path: Path) -> None:
    transcriber = sottovoce.Transcriber(tmp_path / "none.svb")
    with pytest.raises(BundleError, match=r"none\.svb"):
        transcriber.load()
    transcriber.close()


def test_no_threads_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="threads = 0"):
        Transcriber("x.svb", threads=0)


def test_closing_gives_the_sessions_back_and_the_next_use_opens_them_again(random_bundle: Path) -> None:
    with Transcriber(random_bundle, threads=1) as transcriber:
        transcriber.load()
        loaded = transcriber._loaded
        assert loaded is not None and loaded.engine._decoder is not None
        session = weakref.ref(loaded.engine._decoder.session)
        transcriber.close()
        transcriber.close()
        assert transcriber._loaded is None and loaded.engine._decoder is None
        del loaded
        assert session() is None
        assert transcriber.languages[:3] == ("en", "de", "zh"), "in the model's order"
    assert transcriber._loaded is None


def test_loading_twice_loads_once(random: Transcriber) -> None:
    random.load()
    first = random._loaded
    random.load()
    assert random._loaded is first


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"langauge": "en"}, "'langauge'"),
        ({"language": "zz"}, "'zz' is not one of"),
        ({"language": "English"}, "'English'"),
        ({"language": ""}, "''"),
        ({"task": "sing"}, "'sing'"),
        ({"beam_size": 0}, "beam_size = 0"),
        ({"beam_size": 2.5}, "beam_size = 2.5"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": ()}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": (0.0, None)}, "temperature"),
        ({"seed": -1}, "seed = -1"),
        ({"suppress_tokens": [51865]}, "51865"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_its_value(
    random: Transcriber, options: dict[str, Any], said: str
) -> None:
    audio = np.zeros(SECOND, np.float32)
    for call in (lambda: random.transcribe(audio, **options), lambda: random.transcribe_batch([audio], **options)):
        with pytest.raises(InputError, match=re.escape(said)):
            call()


@weights
@pytest.mark.parametrize("options", [{"language": "de"}, {"task": "translate"}])
def test_an_english_only_model_takes_english_alone(tiny: Transcriber, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="English only"):
        tiny.transcribe(np.zeros(SECOND, np.float32), **options)
    assert tiny.languages == ("en",)


def test_a_multilingual_model_names_its_languages_and_weighs_them_all(random: Transcriber) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, SECOND).astype(np.float32)
    _, info = random.transcribe(audio)
    assert info.all_language_probs is not None and len(info.all_language_probs) == len(random.languages) == 99
    shares = [share for _, share in info.all_language_probs]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert info.all_language_probs[0] == (info.language, pytest.approx(info.language_probability, abs=1e-4))


def test_a_language_that_is_given_is_not_guessed(random: Transcriber) -> None:
    _, info = random.transcribe(np.zeros(SECOND, np.float32), language="zh")
    assert (info.language, info.language_probability, info.all_language_probs) == ("zh", 1.0, None)


# -- audio ---------------------------------------------------------------------------------------------------------


@weights
def test_a_real_recording_gives_the_right_words(tiny: Transcriber) -> None:
    audio = joined("beckett")
    segments, info = tiny.transcribe(audio)
    found = list(segments)
    assert spoken(found) == BECKETT
    assert (info.language, info.task) == ("en", "transcribe")
    assert info.duration == pytest.approx(audio.size / SECOND, abs=1e-3) and 5 < info.duration_after_vad <= 10
    assert [segment.id for segment in found] == list(range(1, len(found) + 1))
    assert all(0 <= segment.start < segment.end <= info.duration for segment in found)
    assert all(segment.avg_logprob > -1 and segment.temperature == 0 for segment in found)
    assert all(0 <= segment.no_speech_prob <= 1 for segment in found)


@weights
def test_a_path_its_bytes_and_its_samples_are_heard_alike(tiny: Transcriber) -> None:
    from sottovoce_compiler.report.builtin import builtin_set

    clip = next(clip for clip in builtin_set().clips if clip.name == "beckett-06.10-09.96.wav")
    expected = heard(tiny, clip.file)
    assert expected and heard(tiny, str(clip.file)) == expected == heard(tiny, clip.file.read_bytes())
    assert heard(tiny, load_audio(clip.file)) == expected


@weights
@pytest.mark.parametrize("name", ["silence", "white-noise", "pink-noise", "mains-hum", "clicks"])
def test_sound_without_speech_has_no_words(tiny: Transcriber, name: str) -> None:
    segments, info = tiny.transcribe(clips()[f"{name}.wav"])
    assert list(segments) == []
    assert info.duration_after_vad == 0 and info.duration >= 4 and info.language_probability == 0


@weights
@pytest.mark.parametrize("samples", [1, 160, 800, 8000])
def test_a_moment_of_sound_has_no_words(tiny: Transcriber, samples: int) -> None:
    segments, info = tiny.transcribe(np.full(samples, 0.01, np.float32))
    assert list(segments) == [] and info.duration == pytest.approx(samples / SECOND, abs=1e-3)


@pytest.mark.parametrize("samples", [1, 800])
def test_a_moment_of_sound_can_be_decoded(random: Transcriber, samples: int) -> None:
    """Without voice activity in its bundle, everything is decoded."""
    for segment in heard(random, np.full(samples, 0.01, np.float32), word_timestamps=True):
        assert 0 <= segment.start <= segment.end <= samples / SECOND + 1e-3


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), b"", "none.wav", np.array([0.0, np.nan], np.float32)])
def test_audio_that_cannot_be_heard_is_refused_before_anything_is_decoded(random: Transcriber, audio: Any) -> None:
    with pytest.raises(AudioError):
        random.transcribe(audio)


@weights
def test_another_rate_is_an_argument(tiny: Transcriber) -> None:
    slow = np.repeat(joined("beckett"), 2)
    assert spoken(list(tiny.transcribe(slow, sample_rate=32_000)[0])) == BECKETT


@weights
def test_without_voice_activity_everything_counts(tiny: Transcriber) -> None:
    audio = np.concatenate([joined("beckett"), np.zeros(SECOND, np.float32)])
    segments, info = tiny.transcribe(audio, vad_filter=False)
    assert spoken(list(segments)) == BECKETT and info.duration_after_vad == info.duration


# -- time ----------------------------------------------------------------------------------------------------------


class Counted:
    """Counts what an engine is asked to encode."""

    def __init__(self, transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
        transcriber.load()
        assert transcriber._loaded is not None
        engine = transcriber._loaded.engine
        self.batches: list[int] = []
        start = engine.start

        def counted(clips: Any, capacity: int) -> Any:
            self.batches.append(len(clips))
            return start(clips, capacity)

        monkeypatch.setattr(engine, "start", counted)


@weights
def test_segments_are_decoded_while_they_are_iterated_over(tiny: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(tiny, monkeypatch)
    segments, _ = tiny.transcribe(joined("two-cities"), batch_size=1)
    assert len(counted.batches) == 1, "the first piece, for its language"
    next(segments)
    before = len(counted.batches)
    assert len(list(segments)) > 0 and len(counted.batches) > before


def test_the_language_is_known_before_anything_is_decoded(random: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(random, monkeypatch)
    monkeypatch.setattr("sottovoce.decoding.fallback.sample", None)  # nothing may be decoded
    segments, info = random.transcribe(np.zeros(3 * SECOND, np.float32))
    assert info.language in random.languages and counted.batches == [1]
    with pytest.raises(TypeError):
        next(segments)


CITIES = {"best", "worst", "wisdom", "foolishness", "incredulity", "winter", "despair", "heaven", "superlative"}


@weights
@pytest.mark.parametrize("options", [{}, {"vad_filter": False}])
def test_a_long_recording_comes_in_order_with_its_own_times(tiny: Transcriber, options: dict[str, Any]) -> None:
    cities, pause = joined("two-cities"), np.zeros(6 * SECOND, np.float32)
    audio = np.concatenate([cities, pause, joined("beckett")])
    segments, info = tiny.transcribe(audio, word_timestamps=True, **options)
    found = list(segments)
    assert info.duration == pytest.approx(audio.size / SECOND, abs=1e-3) and info.duration > 55
    said = spoken(found)
    # 131 words; a cut inside a word, a piece that is lost or one that is heard twice costs many.
    assert len(CITIES & set(said)) >= 8 and abs(len(said) - 131) <= 6
    later = [segment for segment in found if segment.start > (cities.size + pause.size) / SECOND - 1]
    assert len(set(spoken(later)) & set(BECKETT)) >= 6, "the second recording begins where it was put"
    times = [time for word in words_of(found) for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= info.duration
    assert [segment.id for segment in found] == list(range(1, len(found) + 1))


@weights
@pytest.mark.parametrize("without_timestamps", [False, True])
def test_words_are_in_order_within_the_audio_and_join_to_their_segment(
    tiny: Transcriber, without_timestamps: bool
) -> None:
    audio = joined("beckett")
    found = heard(tiny, audio, word_timestamps=True, without_timestamps=without_timestamps)
    for segment in found:
        assert segment.words and "".join(word.word for word in segment.words) == segment.text
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
        assert all(0 < word.probability <= 1 for word in segment.words)
    words = words_of(found)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= audio.size / SECOND
    assert [re.sub(r"\W", "", word.word).lower() for word in words] == BECKETT
    # The phrases were cut by ear, in the pauses between them: every word lies within its own.
    edges, counts, at = [0.0, 1.53, 3.1, 4.48, 6.1, 9.96], [2, 2, 2, 2, 4], 0
    for (start, end), count in zip(pairwise(edges), counts, strict=True):
        assert all(start - 0.05 <= word.start < word.end < end + 0.05 for word in words[at : at + count])
        at += count


@weights
def test_words_are_left_out_unless_they_are_asked_for(tiny: Transcriber) -> None:
    plain, timed = (heard(tiny, joined("beckett"), word_timestamps=asked) for asked in (False, True))
    assert all(segment.words is None for segment in plain)
    assert [segment.text for segment in plain] == [segment.text for segment in timed]


# -- decoding ------------------------------------------------------------------------------------------------------


@weights
def test_beams_give_the_right_words_too(tiny: Transcriber) -> None:
    found = heard(tiny, joined("beckett"), beam_size=2)
    greedy = heard(tiny, joined("beckett"))
    assert spoken(found) == BECKETT
    assert sum(s.avg_logprob for s in found) / len(found) >= sum(s.avg_logprob for s in greedy) / len(greedy) - 0.05


@weights
def test_a_temperature_is_a_number_or_several_and_is_said_with_the_segment(tiny: Transcriber) -> None:
    audio = clips()["beckett-06.10-09.96.wav"]
    for temperature in (0.3, (0.3,), [0.3, 0.9]):
        found = heard(tiny, audio, temperature=temperature, log_prob_threshold=-9.0)
        assert found and {segment.temperature for segment in found} == {0.3}
    assert heard(tiny, audio, temperature=0.8, seed=3) == heard(tiny, audio, temperature=0.8, seed=3)


@weights
def test_a_prompt_lends_its_spelling(tiny: Transcriber) -> None:
    audio = clips()["two-cities-24.32-28.49.wav"]
    plain = "".join(segment.text for segment in heard(tiny, audio))
    prompted = "".join(
        segment.text for segment in heard(tiny, audio, initial_prompt="we were going to HEAVEN, HEAVEN.")
    )
    assert "heaven" in plain and plain != prompted and "heaven" in prompted.lower()


@weights
def test_conditioned_on_previous_text_a_long_recording_keeps_its_words(tiny: Transcriber) -> None:
    found = heard(tiny, joined("two-cities"), condition_on_previous_text=True, initial_prompt="Charles Dickens.")
    assert len(CITIES & set(spoken(found))) >= 8


@weights
def test_a_batch_says_what_each_recording_says_alone(tiny: Transcriber) -> None:
    audio = [samples for name, samples in clips().items() if samples.size < 7 * SECOND]
    together = tiny.transcribe_batch(audio, word_timestamps=True)
    assert len(together) == len(audio) >= 9
    for samples, (segments, info) in zip(audio, together, strict=True):
        alone, alone_info = tiny.transcribe(samples, word_timestamps=True)
        expected = list(alone)
        assert [segment.text for segment in segments] == [segment.text for segment in expected]
        assert (info.duration, info.duration_after_vad) == (alone_info.duration, alone_info.duration_after_vad)
        for ours, theirs in zip(words_of(segments), words_of(expected), strict=True):
            assert abs(ours.start - theirs.start) <= 0.06 and abs(ours.probability - theirs.probability) <= 0.1
        assert [segment.id for segment in segments] == list(range(1, len(segments) + 1))


@weights
def test_a_batch_may_hold_long_recordings_and_silence(tiny: Transcriber) -> None:
    results = tiny.transcribe_batch([joined("two-cities"), clips()["silence.wav"], joined("beckett")])
    assert len(CITIES & set(spoken(results[0][0]))) >= 8
    assert results[1][0] == [] and spoken(results[2][0]) == BECKETT


def test_a_batch_of_nothing_is_nothing(random: Transcriber) -> None:
    assert random.transcribe_batch([]) == []


def test_a_batch_of_a_random_model_is_each_recording_alone(random: Transcriber) -> None:
    """In fp32 the tokens are the same, at temperature 0 and when sampling."""
    audio = [
        np.random.default_rng(seed).normal(0, 0.1, round(seconds * SECOND)).astype(np.float32)
        for seed, seconds in enumerate((1.0, 0.3, 2.2, 1.01, 0.5))
    ]
    options = {"temperature": (0.0, 0.4), "compression_ratio_threshold": 99.0, "log_prob_threshold": -99.0}
    for chosen in (options, {**options, "temperature": 0.7}):
        together = random.transcribe_batch(audio, batch_size=3, **chosen)
        for samples, (segments, info) in zip(audio, together, strict=True):
            alone, alone_info = random.transcribe(samples, **chosen)
            assert [segment.tokens for segment in segments] == [segment.tokens for segment in alone]
            assert info.language == alone_info.language


def test_one_unreadable_recording_is_named_by_the_batch(random: Transcriber, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"none\.wav"):
        random.transcribe_batch([np.zeros(SECOND, np.float32), tmp_path / "none.wav"])
