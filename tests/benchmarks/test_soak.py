"""An hour through a stream: the tape, the minutes, and what growth is made of."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soak
from peers import Artifacts, Samples
from soak import MINUTE, Job, Minute, Tape, growth

from sottovoce.streaming.events import Committed, Event
from sottovoce.types import Word


def minute(rss: float, wall: float = 6.0, lag: float = 0.1) -> Minute:
    return Minute(rss, wall, wall, 0.1, lag, 0.0, 10)


def test_a_pass_takes_whole_minutes_and_the_next_one_is_the_same() -> None:
    recordings = [np.full(50 * 16_000, 0.5, np.float32), np.full(20 * 16_000, 0.25, np.float32)]
    tape = Tape(recordings)
    assert tape.minutes_a_pass == 2
    first = tape.take(2 * MINUTE)
    parts = [tape.take(count) for count in (1, MINUTE - 1, MINUTE)]
    np.testing.assert_array_equal(np.concatenate(parts), first)
    assert (first == 0.5).sum() == 50 * 16_000
    assert (first == 0.25).sum() == 20 * 16_000
    assert first[50 * 16_000] == 0  # recordings do not touch


class Listener:
    """Takes `cost` seconds of a clock that is patched in for each piece, and says one word a minute."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0.0, cost
        self.samples: list[int] = []

    def clock(self) -> float:
        return self.now

    def push(self, chunk: Samples, /) -> Iterator[Event]:
        self.samples.append(chunk.size)
        self.now += self.cost
        if sum(self.samples) % MINUTE == 0:
            yield Committed(" a", (Word(0.0, 1.0, " a", 1.0),), "en")

    def finish(self) -> Iterator[Event]:
        yield from ()


@pytest.mark.parametrize(("cost", "pieces", "lag"), [(0.05, 1200, 0.05), (0.25, 480, 0.25)])
def test_a_slow_stream_gets_larger_pieces_and_no_audio_is_lost(
    cost: float, pieces: int, lag: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(cost)
    monkeypatch.setattr(soak.time, "perf_counter", listener.clock)
    found = list(soak.soak(listener, Tape([np.zeros(MINUTE, np.float32)]), 2))
    assert sum(listener.samples) == 2 * MINUTE
    assert [one.words for one in found] == [1, 1]
    assert len(listener.samples) == pytest.approx(pieces, rel=0.02)
    # Audio that came in during a step waits for the next one.
    assert lag <= max(one.max_lag_s for one in found) <= 2 * lag + 0.1
    assert all(one.rss_mb > 0 for one in found)


def test_growth_is_a_slope_that_the_first_two_minutes_do_not_enter() -> None:
    minutes = [minute(50.0), minute(90.0), *(minute(100.0 + i) for i in range(20))]
    found = growth(minutes, minutes_a_pass=7)
    assert found["rss_mb_per_hour"] == pytest.approx(60.0)
    assert found["rss_mb_span"] == pytest.approx(19.0)


def test_cost_is_compared_on_the_same_audio() -> None:
    once = [minute(1.0, wall=wall) for wall in (3.0, 6.0, 9.0)]
    dearer = [minute(3.0, wall=1.5 * one.wall_s, lag=0.3) for one in once]
    found = growth([*once, *once, *once, *dearer, once[0]], minutes_a_pass=3)
    assert found["same_audio_cost_ratio"] == pytest.approx(1.5)
    assert found["same_audio_lag_change_s"] == pytest.approx(0.2)
    assert found["same_audio_rss_change_mb"] == pytest.approx(2.0)


def test_a_short_run_says_nothing_of_growth() -> None:
    assert set(growth([minute(1.0)] * 2, minutes_a_pass=9).values()) == {None}


def test_a_job_survives_the_command_line() -> None:
    job = Job("sottovoce", Artifacts(bundle=Path("a.svb")), 2, Path("m.jsonl"), 60)
    assert Job.from_argument(job.to_argument()) == job
