import sys
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.chat.text import TextStream

# Few letters, so that stops overlap with the text and with one another; some of 2, 3 and 4 bytes.
LETTERS = st.text("abé日👍", max_size=40)
STOPS = st.lists(st.text("abé日👍", min_size=1, max_size=5), max_size=5)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop to be complete, of several the longest."""
    for end in range(len(text) + 1):
        ended = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(ended)]
    return text


def streamed(pieces: Sequence[bytes], stops: Sequence[str]) -> list[str]:
    stream = TextStream(stops)
    return [*(stream.push(piece) for piece in pieces), stream.finish()]


def split(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(LETTERS, STOPS, st.lists(st.integers(0, 200), max_size=30))
def test_however_the_bytes_are_split_the_text_is_that_before_the_first_stop(
    text: str, stops: list[str], places: list[int]
) -> None:
    assert "".join(streamed(split(text.encode(), places), stops)) == cut(text, stops)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=30))
def test_bytes_that_are_no_text_become_what_python_makes_of_them_at_once(data: bytes, places: list[int]) -> None:
    assert "".join(streamed(split(data, places), [])) == data.decode("utf-8", "replace")


@given(LETTERS, STOPS)
def test_nothing_is_shown_that_could_still_begin_a_stop_and_nothing_else_is_held(text: str, stops: list[str]) -> None:
    stream, shown = TextStream(stops), ""
    for at, character in enumerate(text):
        shown += stream.push(character.encode())
        if stream.stopped:
            break
        so_far = text[: at + 1]
        begun = [n for stop in stops for n in range(len(stop)) if so_far.endswith(stop[:n])]
        assert shown == so_far[: len(so_far) - max(begun, default=0)]


def test_half_a_character_waits_for_its_other_half() -> None:
    one, *others = "👍".encode()
    stream = TextStream()
    assert stream.push(bytes([one])) == ""
    assert [stream.push(bytes([byte])) for byte in others] == ["", "", "👍"]


def test_half_a_character_at_the_end_is_replaced() -> None:
    assert streamed(["aé".encode()[:-1]], []) == ["a", "\ufffd"]


def test_a_stop_string_split_over_tokens_is_never_shown() -> None:
    stream = TextStream(["STOP"])
    assert [stream.push(piece) for piece in (b"go S", b"T", b"OP on", b"more")] == ["go ", "", "", ""]
    assert stream.stopped and stream.finish() == ""


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    stream = TextStream(["STOP"])
    assert [stream.push(piece) for piece in (b"ST", b"AY", b" STO")] == ["", "STAY", " "]
    assert stream.finish() == "STO" and not stream.stopped


@pytest.mark.parametrize("stops", [["abcd", "c"], ["c", "abcd"]])
def test_the_stop_that_is_complete_first_counts_even_within_another(stops: list[str]) -> None:
    assert "".join(streamed([b"xabcd"], stops)) == "".join(streamed([b"x", b"a", b"b", b"c", b"d"], stops)) == "xab"


def test_time_is_linear_in_the_text_also_where_it_nearly_stops_all_the_time() -> None:
    """Counted in lines of Python run, for text twice as long: no timing."""

    def lines(repeats: int) -> int:
        stream, count = TextStream(["a" * 50 + "b", "a" * 49 + "c"]), 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for _ in range(repeats):
                stream.push(b"aaaa")
        finally:
            sys.settrace(before)
        return count

    assert lines(400) < 2.2 * lines(200)
