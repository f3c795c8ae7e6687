import pytest

from sottovoce.streaming.endpoint import FRAME_SECONDS, Endpoint, Turn

LOUD, SOFT, SILENT = 0.9, 0.3, 0.0  # soft: below the threshold, and not yet silence


def heard(*runs: tuple[int, float], end_of_speech: float = 0.32) -> tuple[list[tuple[int, Turn]], Endpoint]:
    """Turns of frames in runs of (count, probability), each with the number of the frame that made it."""
    endpoint = Endpoint(0.4, end_of_speech)
    frames = [probability for count, probability in runs for _ in range(count)]
    turns = [(number, turn) for number, frame in enumerate(frames) if (turn := endpoint.push(frame)) is not None]
    return turns, endpoint


def test_speech_starts_after_a_tenth_of_a_second_and_began_with_its_first_frame() -> None:
    turns, endpoint = heard((20, SILENT), (5, LOUD))
    assert turns == [(22, Turn.STARTED)]
    assert (endpoint.began, endpoint.speaking) == (20, True)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_click_is_not_speech_however_often_it_comes(frames: int) -> None:
    turns, endpoint = heard(*[(frames, 1.0), (5, SILENT)] * 10)
    assert turns == [] and not endpoint.speaking


def test_a_frame_at_the_threshold_counts_and_one_below_does_not() -> None:
    assert heard((3, 0.4))[0] == [(2, Turn.STARTED)]
    assert heard((30, 0.39))[0] == []


def test_a_soft_frame_does_not_undo_a_beginning_and_a_silent_one_does() -> None:
    turns, endpoint = heard((2, LOUD), (1, SOFT), (1, LOUD))
    assert turns == [(3, Turn.STARTED)] and endpoint.began == 0
    turns, endpoint = heard((2, LOUD), (1, SILENT), (2, LOUD), (1, LOUD))
    assert turns == [(5, Turn.STARTED)] and endpoint.began == 3


def test_speech_ends_when_silence_has_lasted() -> None:
    turns, endpoint = heard((10, LOUD), (30, SILENT))
    assert turns == [(2, Turn.STARTED), (19, Turn.ENDED)]
    assert not endpoint.speaking and endpoint.quiet == 0


@pytest.mark.parametrize("seconds", [0.1, 0.6, 2.0])
def test_how_long_silence_lasts_is_an_option(seconds: float) -> None:
    turns, _ = heard((10, LOUD), (100, SILENT), end_of_speech=seconds)
    assert (turns[1][0] - 9) * FRAME_SECONDS == pytest.approx(seconds, abs=FRAME_SECONDS / 2 + 1e-9)


def test_a_shorter_silence_is_counted_and_then_forgotten() -> None:
    turns, endpoint = heard((10, LOUD), (9, SILENT), (1, LOUD), (9, SILENT))
    assert len(turns) == 1 and endpoint.speaking and endpoint.quiet == 9


def test_speech_goes_on_at_a_lower_probability_than_it_began() -> None:
    turns, endpoint = heard((10, LOUD), (100, SOFT))
    assert len(turns) == 1 and endpoint.speaking and endpoint.quiet == 0
    assert len(heard((10, LOUD), (100, 0.24))[0]) == 2


def test_a_second_stretch_of_speech_has_its_own_beginning() -> None:
    turns, endpoint = heard((10, LOUD), (20, SILENT), (10, LOUD))
    assert [turn for _, turn in turns] == [Turn.STARTED, Turn.ENDED, Turn.STARTED]
    assert endpoint.began == 30


def test_what_was_loud_before_a_reset_does_not_count() -> None:
    endpoint = Endpoint(0.4, 0.32)
    endpoint.push(LOUD)
    endpoint.push(LOUD)
    endpoint.reset()
    assert endpoint.push(LOUD) is None and not endpoint.speaking
    assert [endpoint.push(LOUD), endpoint.push(LOUD)] == [None, Turn.STARTED] and endpoint.began == 2


def test_a_click_before_a_soft_sound_is_not_where_speech_began() -> None:
    endpoint = Endpoint(0.4, 0.6)
    soft = [endpoint.push(p) for p in [0.9, *[0.3] * 100]]
    assert set(soft) == {None}
    turns = [endpoint.push(0.9) for _ in range(5)]
    assert Turn.STARTED in turns and endpoint.began == 101
