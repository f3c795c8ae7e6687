from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.vad import FRAME, SAMPLE_RATE, Span, VadOptions, VoiceActivity, VoiceStream, speech_spans

OPTIONS = VadOptions()
PAD = round(OPTIONS.pad * SAMPLE_RATE)


def spans(*runs: tuple[int, float], cut: int = 0) -> list[Span]:
    """Speech in runs of (frames, probability); `cut` samples are missing from the last frame."""
    probabilities = np.concatenate([np.full(frames, value, np.float32) for frames, value in runs])
    return speech_spans(probabilities, probabilities.size * FRAME - cut, OPTIONS)


def test_speech_is_found_with_a_little_before_and_after_it() -> None:
    assert spans((50, 0.0), (20, 0.9), (50, 0.0)) == [Span(50 * FRAME - PAD, 70 * FRAME + PAD)]


def test_padding_stays_within_the_audio() -> None:
    assert spans((10, 0.9), cut=100) == [Span(0, 10 * FRAME - 100)]


def test_a_click_is_not_speech() -> None:
    assert spans((50, 0.0), (3, 1.0), (50, 0.0)) == []


def test_a_short_pause_does_not_part_speech_and_a_long_one_does() -> None:
    assert len(spans((20, 0.9), (8, 0.0), (20, 0.9))) == 1
    assert len(spans((20, 0.9), (30, 0.0), (20, 0.9))) == 2


def test_speech_once_begun_goes_on_at_lower_probability() -> None:
    assert spans((20, 0.3)) == []
    assert spans((5, 0.5), (40, 0.3), (50, 0.0)) == [Span(0, 45 * FRAME + PAD)]


def test_neighbours_meet_in_the_middle_of_their_pause() -> None:
    first, second = spans((20, 0.9), (10, 0.0), (20, 0.9))
    assert first.end == second.start == 25 * FRAME


def test_nothing_has_no_speech() -> None:
    assert speech_spans(np.zeros(0, np.float32), 0, OPTIONS) == []


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.9])), max_size=12))
def test_spans_are_in_order_apart_and_within_the_audio(runs: list[tuple[int, float]]) -> None:
    total = sum(frames for frames, _ in runs) * FRAME
    found = spans(*runs, (0, 0.0))
    edges = [edge for span in found for edge in (span.start, span.end)]
    assert edges == sorted(edges) and all(0 <= edge <= total for edge in edges)
    assert all(span.start < span.end for span in found)


class Remembering:
    """Voice activity whose every probability depends on its frame, on the samples before it and on all of the past."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, frames: np.ndarray, context: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        self.calls.append(len(frames))
        out, past = [], float(state[0].sum())
        for frame in frames:
            past = (past * 3 + float(frame.sum()) + 7 * float(context.sum())) % 1009
            out.append(past)
            context = frame[-64:]
        return np.array(out, np.float32), (np.full((1, 1, 128), past / 128, np.float32), state[1])


pieces = st.lists(st.one_of(st.integers(0, 40), st.sampled_from([511, 512, 513, 1024, 3000])), max_size=25)


@settings(deadline=None)
@given(pieces)
def test_pieces_of_any_size_have_the_probabilities_of_one_call(sizes: list[int]) -> None:
    samples = np.random.default_rng(0).integers(0, 50, sum(sizes)).astype(np.float32)
    stream = VoiceStream(Remembering())  # type: ignore[arg-type]
    found = []
    for end, size in zip(np.cumsum(sizes, dtype=int), sizes, strict=True):
        piece = samples[end - size : end].copy()
        found.append(stream.push(piece))
        assert sum(part.size for part in found) == end // FRAME, "as soon as a frame is complete"
        piece[:] = -1  # a source may use its buffer again
    whole = VoiceStream(Remembering()).push(samples)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *found]), whole)


def test_a_long_piece_is_heard_in_bounded_calls() -> None:
    activity = Remembering()
    assert VoiceStream(activity).push(np.zeros(3000 * FRAME + 5, np.float32)).size == 3000  # type: ignore[arg-type]
    assert max(activity.calls) <= 512 and sum(activity.calls) == 3000


@pytest.fixture(scope="module")
def network() -> VoiceActivity:
    from sottovoce_compiler.components import SILERO_VAD, fetch_component

    return VoiceActivity(fetch_component(SILERO_VAD).read_bytes())


@pytest.mark.weights
@pytest.mark.parametrize("samples", [0, 1, 511, 512, 513, 800, 16_000])
def test_every_started_frame_has_a_probability(network: VoiceActivity, samples: int) -> None:
    found = network.probabilities(np.zeros(samples, np.float32))
    assert found.shape == (-(-samples // FRAME),) and (found < 0.4).all()


@pytest.mark.weights
def test_speech_is_told_from_silence_and_noise_and_state_crosses_from_call_to_call(network: VoiceActivity) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    clips = {clip.name: load_audio(clip.file) for clip in builtin_set().clips}
    speech = network.probabilities(clips["two-cities-00.00-20.62.wav"])
    assert (speech > 0.5).mean() > 0.7, "more than one call of 16 s"
    # The network remembers: what it says after the seam differs from what it says when it starts there.
    seam = 512
    fresh = network.probabilities(clips["two-cities-00.00-20.62.wav"][seam * FRAME :])
    assert not np.allclose(speech[seam : seam + 3], fresh[:3], atol=1e-4)
    for name in ("white-noise.wav", "pink-noise.wav", "mains-hum.wav", "clicks.wav"):
        found = network.probabilities(clips[name])
        assert speech_spans(found, clips[name].size, OPTIONS) == [], name


@pytest.mark.weights
def test_one_call_over_the_seam_says_the_same_as_frame_by_frame(
    network: VoiceActivity, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    clip = next(clip for clip in builtin_set().clips if clip.name == "beckett-06.10-09.96.wav")
    samples = load_audio(clip.file)
    whole = network.probabilities(samples)
    monkeypatch.setattr("sottovoce.vad._FRAMES_A_CALL", 7)
    np.testing.assert_allclose(network.probabilities(samples), whole, atol=1e-5)


@pytest.mark.weights
@pytest.mark.parametrize("size", [100, 512, 1600, 10_000])
def test_real_speech_in_pieces_has_the_probabilities_of_one_call(network: VoiceActivity, size: int) -> None:
    from sottovoce.audio import load_audio
    from sottovoce_compiler.report.builtin import builtin_set

    clip = next(clip for clip in builtin_set().clips if clip.name == "beckett-06.10-09.96.wav")
    samples = load_audio(clip.file)
    samples = samples[: samples.size // FRAME * FRAME]
    stream = VoiceStream(network)
    found = np.concatenate([stream.push(samples[at : at + size]) for at in range(0, samples.size, size)])
    np.testing.assert_allclose(found, network.probabilities(samples), atol=1e-5)
