"""A recording played live: at its pace, late, or without waiting."""

import numpy as np
import pytest

from sottovoce.streaming.sources.recording import Recording

SAMPLES = np.arange(1050, dtype=np.float32)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def paced(clock: Clock) -> Recording:
    return Recording(SAMPLES, 1000, clock=clock, sleep=clock.sleep)


def test_a_chunk_comes_when_its_last_sample_was_spoken(clock: Clock) -> None:
    came = [(round(clock.now - 100, 6), len(chunk.samples)) for chunk in paced(clock)]
    assert came == [(round(0.1 * i, 6), 100) for i in range(1, 11)] + [(1.05, 50)]


def test_a_late_listener_gets_everything_that_was_spoken_meanwhile(clock: Clock) -> None:
    recording = paced(clock)
    next(recording)
    clock.now += 0.5
    assert list(next(recording).samples) == list(range(100, 600))
    clock.now += 60
    assert list(next(recording).samples) == list(range(600, 1050))
    assert list(recording) == []


def test_time_counts_from_the_first_chunk_and_not_from_when_it_was_made(clock: Clock) -> None:
    recording = paced(clock)
    clock.now += 60
    assert len(next(recording).samples) == 100 and recording.time == 0.1


def test_without_pace_all_chunks_are_alike_and_nobody_sleeps(clock: Clock) -> None:
    chunks = list(Recording(SAMPLES, 1000, pace=False, clock=clock, sleep=clock.sleep))
    assert [len(chunk.samples) for chunk in chunks] == [100] * 10 + [50] and clock.now == 100.0
    assert {chunk.sample_rate for chunk in chunks} == {1000}
    np.testing.assert_array_equal(np.concatenate([chunk.samples for chunk in chunks]), SAMPLES)


def test_nothing_comes_after_a_stop() -> None:
    recording = Recording(SAMPLES, 1000, pace=False)
    next(recording)
    recording.stop()
    assert list(recording) == [] and recording.time == recording.duration == 0.1


def test_an_empty_recording_is_over_at_once() -> None:
    assert list(Recording(SAMPLES[:0], 1000)) == []
