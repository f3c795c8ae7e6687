"""The progress bar: there on a terminal, and nowhere else."""

import io

import pytest

from sottovoce.cli.progress import CLEAR_LINE, Progress, clock


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def lines(terminal: io.StringIO) -> list[str]:
    return terminal.getvalue().split(CLEAR_LINE)[1:]


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which ten seconds pass between two looks."""
    time = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(time)))


@pytest.mark.usefixtures("ticking")
def test_it_shows_how_much_is_done_and_how_long_it_will_take() -> None:
    terminal = Terminal()
    bar = Progress(100.0, "talk.wav", terminal)
    bar.update(25.0)
    bar.update(50.0)
    first, second = lines(terminal)
    assert first.startswith("talk.wav [") and " 25%  0:25 of 1:40  0:30 left" in first
    assert " 50%" in second and second.count("#") == second.removeprefix("talk.wav").count(".")


@pytest.mark.usefixtures("ticking")
def test_clearing_leaves_an_empty_line_behind() -> None:
    terminal = Terminal()
    bar = Progress(100.0, "", terminal)
    bar.update(25.0)
    bar.clear()
    bar.clear()
    assert terminal.getvalue().endswith(CLEAR_LINE) and lines(terminal)[1:] == [""]


@pytest.mark.usefixtures("ticking")
def test_it_never_shows_more_than_all() -> None:
    terminal = Terminal()
    Progress(100.0, "", terminal).update(104.0)
    assert "100%  1:40 of 1:40  0:00 left" in lines(terminal)[0]


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize("columns", [1, 10, 40, 80, 300])
def test_it_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    Progress(7200.0, "a recording with quite a long name.wav", terminal).update(1234.0)
    assert len(lines(terminal)[0]) < max(columns, 2)


def test_a_pipe_and_a_short_recording_have_no_bar() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    Progress(100.0, "", pipe).update(50.0)
    Progress(10.0, "", terminal).update(5.0)
    assert pipe.getvalue() == terminal.getvalue() == ""


def test_it_is_not_drawn_more_often_than_one_can_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    terminal = Terminal()
    bar = Progress(100.0, "", terminal)
    for done in range(100):
        bar.update(float(done))
    assert len(lines(terminal)) == 1


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3600, "1:00:00")])
def test_a_clock_shows_hours_when_there_are_some(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
