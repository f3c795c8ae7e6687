from pathlib import Path

import numpy as np
import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.report.stream import Offline, StreamClip, score_clip
from sottovoce_compiler.report.stream_clock import LiveRun
from sottovoce_compiler.report.timeline import draw, strip, time_line

from .stream_case import STEPS, at, card, clip, committed, scored


def spoken_at(name: str, seconds: float, *ends: float) -> StreamClip:
    words = [(f" w{number}", end) for number, end in enumerate(ends)]
    events = at(*((end + 1.0, committed(word)) for word, end in words))
    text = "".join(word for word, _ in words)
    return score_clip(clip(name, text, seconds=seconds), LiveRun(events, STEPS, seconds), Offline(text, tuple(words)))


def test_a_plot_is_a_picture_in_which_something_is_drawn(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "words.png"
    draw(card(scored()), "tiny.svb", path)
    assert path.read_bytes().startswith(b"\x89PNG")
    picture = imread(path)
    assert picture.shape[1] > picture.shape[0] > 500
    blue = (picture[..., 2] > 0.75) & (picture[..., 0] < 0.2)
    orange = (picture[..., 0] > 0.8) & (picture[..., 2] < 0.25)
    assert np.count_nonzero(blue) > 200 and np.count_nonzero(orange) > 100


def test_the_clip_with_the_most_words_is_drawn() -> None:
    line = time_line(card(spoken_at("few", 4.0, 1.0), spoken_at("many", 4.0, 1.0, 2.0)))
    assert (line.name, line.span, len(line.words)) == ("many", (0.0, 4.0), 2)


def test_of_a_long_clip_the_thirty_seconds_with_the_most_words_are_drawn() -> None:
    ends = [2.0, 50.0, 300.0, 301.0, 302.0, 500.0]
    line = time_line(card(spoken_at("long", 600.0, *ends)))
    assert line.span == (299.0, 329.0) and [word.end for word in line.words] == [300.0, 301.0, 302.0]


def test_speech_is_the_stretches_between_its_events() -> None:
    assert time_line(card(scored())).speech == ((0.5, 2.6),)


def test_the_terminal_shows_a_ring_before_a_dot_for_each_word() -> None:
    legend, ruler, *rows = strip(card(scored()), 80)
    assert "○ first shown" in legend and ruler.endswith("delay")
    assert [row.split()[:2] for row in rows] == [["1.00", "and"], ["1.50", "so"], ["2.00", "my"], ["2.50", "fellow"]]
    assert all(row.index("○") < row.index("●") for row in rows)
    assert rows[0].index("|") < rows[0].index("○"), "shown after its end"
    assert rows[0].endswith(" 1.00") and rows[1].endswith(" 0.50")
    assert ruler.index("0") == rows[0].index("|")


@pytest.mark.parametrize("width", [10, 40, 60, 200])
def test_the_terminal_is_filled_and_not_overrun(width: int) -> None:
    lines = strip(card(scored()), width)
    assert max(len(line) for line in lines) == max(width, 40)


def test_without_a_timed_word_there_is_nothing_to_draw(tmp_path: Path) -> None:
    for empty in (card(), card(scored(events=()))):
        with pytest.raises(InputError, match=r"nothing to draw.*set\.jsonl"):
            draw(empty, "tiny.svb", tmp_path / "words.png")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        draw(card(scored()), "tiny.svb", tmp_path / "no" / "words.png")
