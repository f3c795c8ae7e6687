"""The queue of a live source: in order, bounded, and over at once when either side says so."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce.streaming.chunks import AudioChunk, AudioGap
from sottovoce.streaming.sources.queue import LiveQueue

RATE = 1000


def ramp(start: int, stop: int) -> NDArray[np.float32]:
    return np.arange(start, stop, dtype=np.float32)


def samples(chunk: AudioChunk | AudioGap | None) -> list[float]:
    assert isinstance(chunk, AudioChunk)
    return list(chunk.samples.ravel())


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_everything_queued_comes_as_one_chunk() -> None:
    queue = LiveQueue()
    for start in range(0, 500, 100):
        assert queue.put(ramp(start, start + 100), RATE)
    queue.finish()
    assert samples(next(queue)) == list(range(500))
    with pytest.raises(StopIteration):
        next(queue)


def test_a_change_of_rate_or_channels_begins_another_chunk() -> None:
    queue = LiveQueue()
    queue.put(ramp(0, 4), RATE)
    queue.put(ramp(0, 4), 2 * RATE)
    queue.put(ramp(0, 4).reshape(2, 2), 2 * RATE)
    queue.finish()
    chunks = [chunk for chunk in queue if isinstance(chunk, AudioChunk)]
    assert [(chunk.samples.shape, chunk.sample_rate) for chunk in chunks] == [
        ((4,), RATE),
        ((4,), 2 * RATE),
        ((2, 2), 2 * RATE),
    ]


def test_single_samples_and_empty_arrays_are_kept_in_few_pieces() -> None:
    queue = LiveQueue()
    for value in range(1000):
        queue.put(ramp(value, value + 1), RATE)
        queue.put(ramp(0, 0), RATE)
    assert len(queue._items) <= 30
    assert samples(queue.take()) == list(range(1000))


def test_the_oldest_audio_is_dropped_and_its_gap_stands_in_its_place() -> None:
    queue = LiveQueue(limit=1.0, overflow="drop")
    for start in range(0, 2500, 250):
        queue.put(ramp(start, start + 250), RATE)
    queue.finish()
    gap, chunk = list(queue)
    assert gap == AudioGap(1.5) and samples(chunk) == list(range(1500, 2500))


def test_a_gap_reported_by_the_source_keeps_its_place_until_it_is_dropped_itself() -> None:
    queue = LiveQueue(limit=1.0, overflow="drop")
    queue.put(ramp(0, 400), RATE)
    queue.lose(0.25)
    queue.put(ramp(400, 800), RATE)
    queue.put(ramp(800, 1200), RATE)  # the first 400 and the gap behind them: both are lost time
    queue.finish()
    found = list(queue)
    assert sum(one.seconds for one in found if isinstance(one, AudioGap)) == pytest.approx(0.65)
    assert samples(found[-1]) == list(range(400, 1200))


def test_an_array_longer_than_the_limit_keeps_its_end() -> None:
    queue = LiveQueue(limit=1.0, overflow="drop")
    queue.put(ramp(0, 3000), RATE)
    queue.finish()
    gap, chunk = list(queue)
    assert gap == AudioGap(2.0) and samples(chunk) == list(range(2000, 3000))


def test_a_producer_waits_while_the_queue_is_full_and_nothing_is_lost() -> None:
    queue = LiveQueue(limit=0.35, overflow="wait")
    held: list[float] = []

    def produce() -> None:
        for start in range(0, 2000, 100):
            queue.put(ramp(start, start + 100), RATE)
            held.append(queue._seconds)
        queue.finish()

    in_thread(produce)
    wait_until(lambda: len(held) == 3)
    assert [value for chunk in queue for value in samples(chunk)] == list(range(2000))
    assert max(held) <= 0.35


def test_an_array_longer_than_the_limit_is_taken_when_there_is_nothing_else() -> None:
    queue = LiveQueue(limit=0.1, overflow="wait")
    assert queue.put(ramp(0, 500), RATE) and samples(queue.take()) == list(range(500))


def test_an_error_of_the_producer_comes_after_what_was_queued_and_once() -> None:
    queue = LiveQueue()
    queue.put(ramp(0, 10), RATE)
    queue.finish(OSError("unplugged"))
    assert samples(next(queue)) == list(range(10))
    with pytest.raises(OSError, match="unplugged"):
        next(queue)
    with pytest.raises(StopIteration):
        next(queue)


def test_closing_frees_a_producer_and_a_consumer_that_wait() -> None:
    full, empty = LiveQueue(limit=0.1, overflow="wait"), LiveQueue()
    full.put(ramp(0, 100), RATE)
    results: list[object] = []
    threads = [
        in_thread(lambda: results.append(full.put(ramp(0, 100), RATE))),
        in_thread(lambda: results.append(list(empty))),
    ]
    full.close()
    empty.close()
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, results)) == ["False", "[]"]
    assert full.take() is None and not full.put(ramp(0, 1), RATE)


def test_nothing_within_the_timeout_is_none() -> None:
    assert LiveQueue().take(0.001) is None
