import numpy as np
import pytest

from sottovoce.streaming.events import SpeechEnded, SpeechStarted
from sottovoce_compiler.report.stream_clock import LiveRun, no_time, play

from .stream_case import Costly, Work, committed, partial, silence

PIECE = 1600


def played(session: Costly, seconds: float) -> LiveRun:
    return play(session, silence(seconds), 0.1, session.work, session.work)


def test_a_machine_that_is_fast_gets_every_piece_alone_and_never_lags_more_than_its_work() -> None:
    session = Costly(Work(), cost=0.04)
    run = played(session, 2.0)
    assert session.chunks == [PIECE] * 20 and session.finished
    assert run.max_lag == pytest.approx(0.04)
    assert run.wall_seconds == pytest.approx(0.8) and run.audio_seconds == 2.0


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.7, 5.7, 60.0])
def test_the_pieces_come_to_the_whole_recording_whatever_its_length(seconds: float) -> None:
    session = Costly(Work())
    played(session, seconds)
    assert session.chunks == [PIECE] * round(seconds * 10)


def test_the_rest_of_a_recording_that_is_no_whole_number_of_pieces_is_heard_when_it_ends() -> None:
    session = Costly(Work(), says={2: [partial(" end")]})
    run = played(session, 0.25)
    assert session.chunks == [PIECE, PIECE, PIECE // 2]
    assert run.events[0].at == pytest.approx(0.25)


def test_what_arrives_while_a_step_is_slow_is_one_chunk_and_the_lag_recovers() -> None:
    session = Costly(Work(), cost=0.02, costs={4: 0.75})
    run = played(session, 2.0)
    # The fifth piece ends at 0.5 s and is done at 1.25 s: seven pieces have come in.
    assert session.chunks[:7] == [PIECE] * 5 + [7 * PIECE, PIECE]
    assert sum(session.chunks) == 20 * PIECE
    assert [step.lag for step in run.steps[4:7]] == pytest.approx([0.75, 0.07, 0.02])
    assert run.max_lag == pytest.approx(0.75) and run.end_lag == pytest.approx(0.02)


def test_a_machine_that_is_too_slow_falls_behind_by_a_step_and_not_without_end() -> None:
    session = Costly(Work(), cost=0.35)
    run = played(session, 10.0)
    assert set(session.chunks[1:-1]) == {3 * PIECE, 4 * PIECE}
    assert run.max_lag < 2 * 0.35 + 0.1


def test_an_event_is_stamped_when_it_is_known_and_not_when_the_step_is_over() -> None:
    session = Costly(Work(), cost=0.06, says={2: [partial(" so")]})
    run = played(session, 1.0)
    assert run.events[0].at == pytest.approx(0.3 + 0.03)


def test_what_is_said_at_the_end_is_stamped_after_all_audio() -> None:
    session = Costly(Work(), says={-1: [committed(" so")]})
    assert [one.at for one in played(session, 1.0).events] == pytest.approx([1.0])


def test_free_compute_leaves_the_stamps_at_the_times_of_arrival() -> None:
    session = Costly(Work(), cost=5.0, says={2: [partial(" so")], 7: [committed(" so")]})
    run = play(session, silence(1.0), 0.1, no_time)
    assert session.chunks == [PIECE] * 10
    assert [one.at for one in run.events] == pytest.approx([0.3, 0.8])
    assert (run.wall_seconds, run.cpu_seconds(speech=False), run.max_lag) == pytest.approx((0, 0, 0))


def test_work_is_told_apart_by_whether_somebody_speaks() -> None:
    says = {3: [SpeechStarted(0.3)], 6: [committed(" so"), SpeechEnded(0.5)]}
    run = played(Costly(Work(), cost=0.01, costs={4: 0.05}, says=says), 1.0)
    assert run.seconds(speech=True) == pytest.approx(0.4) and run.seconds(speech=False) == pytest.approx(0.6)
    assert run.cpu_seconds(speech=True) == pytest.approx(0.08)
    assert run.cpu_seconds(speech=False) == pytest.approx(0.06)


def test_a_recording_without_samples_is_only_finished() -> None:
    session = Costly(Work(), says={-1: [SpeechEnded(0.0)]})
    run = play(session, np.zeros(0, np.float32), 0.1, session.work, session.work)
    assert session.chunks == [] and session.finished
    assert (run.audio_seconds, run.end_lag, len(run.events)) == (0.0, 0.0, 1)
