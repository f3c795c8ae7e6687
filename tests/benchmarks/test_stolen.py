"""Lag in real time, before, during and after a theft."""

from collections.abc import Iterator

import numpy as np
import pytest
import stolen
from peers import Samples
from stolen import Lag, Theft, by_second, parts, play_paced, recovered_after, summary

from sottovoce.streaming.events import Event, Partial


def lags(*runs: tuple[float, float, float]) -> list[Lag]:
    """(from, to, behind) every half second."""
    return [Lag(float(at), behind) for start, end, behind in runs for at in np.arange(start, end, 0.5)]


def test_the_first_seconds_and_the_theft_are_apart() -> None:
    found = parts(lags((0, 2, 9.0), (2, 10, 0.1), (10, 20, 1.0), (20, 30, 0.2)), Theft(10.0, 20.0))
    means = {name: summary(part) for name, part in found.items()}
    assert {name: said["mean"] for name, said in means.items() if said} == {
        "before": pytest.approx(0.1),
        "during": pytest.approx(1.0),
        "after": pytest.approx(0.2),
    }
    assert summary([]) is None


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        (lags((20, 30, 0.1)), 0.0),
        (lags((20, 24, 2.0), (24, 30, 0.1)), 3.5),
        (lags((20, 30, 2.0)), None),
        (lags((20, 22, 2.0), (22, 23, 0.1), (23, 26, 2.0), (26, 30, 0.1)), 5.5),
        (lags((20, 22, 0.1)), None),  # too short to tell
        ([], None),
    ],
)
def test_recovered_is_when_the_lag_stays_where_it_was(after: list[Lag], seconds: float | None) -> None:
    found = recovered_after(lags((2, 10, 0.1), (10, 20, 2.0)) + after, Theft(10.0, 20.0))
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_a_second_shows_its_longest_lag_and_none_where_nothing_was_done() -> None:
    assert by_second([Lag(0.2, 0.1), Lag(0.9, 0.3), Lag(2.5, 0.2)]) == [0.3, None, 0.2]
    assert by_second([]) == []


class Counting:
    """Says how much it has heard."""

    def __init__(self) -> None:
        self.samples = 0

    def push(self, chunk: Samples, /) -> Iterator[Event]:
        self.samples += chunk.size
        yield Partial(str(self.samples), 0.0)

    def finish(self) -> Iterator[Event]:
        yield Partial("end", 0.0)


def test_a_thief_comes_and_goes_and_all_audio_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(stolen.Thief, "start", lambda self: seen.append("start"))
    monkeypatch.setattr(stolen.Thief, "stop", lambda self: seen.append("stop"))
    session = Counting()
    run = play_paced(session, np.zeros(16_000, np.float32), Theft(0.3, 0.6))
    assert session.samples == 16_000
    assert seen == ["start", "stop", "stop"]  # the last one in any case
    assert run.theft is not None and 0.3 <= run.theft.start < run.theft.end
    assert run.events[-1].event == Partial("end", 0.0)
    assert [one.at for one in run.events] == sorted(one.at for one in run.events)
    assert {"lag_before", "lag_during", "lag_after", "recovered_after_s"} <= run.to_json(2).keys()


def test_a_thief_leaves_also_where_the_stream_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Counting):
        def push(self, chunk: Samples, /) -> Iterator[Event]:
            raise RuntimeError("no")
            yield

    seen: list[str] = []
    monkeypatch.setattr(stolen.Thief, "stop", lambda self: seen.append("stop"))
    with pytest.raises(RuntimeError):
        play_paced(Failing(), np.zeros(1600, np.float32))
    assert seen == ["stop"]
