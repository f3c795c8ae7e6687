"""The bounded stretch of audio: what is in it is what was put in, at its place, and never more than the limit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.streaming.window import AudioWindow

LIMIT = 50
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 130)),
        st.tuples(st.just("drop"), st.integers(-20, 200)),
        st.tuples(st.just("skip"), st.integers(0, 40)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_the_window_holds_the_newest_samples_at_their_places_and_never_more_than_its_limit(
    todo: list[tuple[str, int]],
) -> None:
    window, end, start = AudioWindow(LIMIT), 0, 0
    for action, count in todo:
        if action == "append":
            window.append(np.arange(end, end + count, dtype=np.float32))  # a sample is its own place
            end += count
            start = max(start, end - LIMIT)
        elif action == "drop":
            window.drop_before(end - 100 + count)
            start = min(max(start, end - 100 + count), end)
        else:
            window.skip(count)
            end += count
            start = end
        assert (window.start, window.end) == (start, end)
        np.testing.assert_array_equal(window.samples, np.arange(start, end, dtype=np.float32))
        assert window.seconds == (end - start) / 16_000


def test_the_store_never_grows() -> None:
    window = AudioWindow(LIMIT)
    before = window._store.nbytes
    for _ in range(100):
        window.append(np.zeros(33, np.float32))
    assert window._store.nbytes == before


def test_what_was_appended_is_copied() -> None:
    window, samples = AudioWindow(LIMIT), np.ones(10, np.float32)
    window.append(samples)
    samples[:] = 0
    assert window.samples.all()
