"""The pure parts of the loss stage: which tokens are read, and logits that are computed once."""

import numpy as np
from chat_stages.kl import Remembered, shortened


def test_logits_of_a_window_are_computed_once_while_there_is_room() -> None:
    asked: list[tuple[int, ...]] = []

    def logits(tokens: list[int]) -> np.ndarray:
        asked.append(tuple(tokens))
        return np.full((len(tokens), 4), tokens[0], np.float32)

    remembered = Remembered(logits, most=3 * 4 * 4)
    for window in ([1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]):
        assert remembered(window)[0, 0] == window[0]
    assert asked == [(1, 2, 3), (4, 5, 6), (4, 5, 6)]


def test_so_many_tokens_of_the_passages_are_read_and_no_more() -> None:
    assert shortened([[1, 2, 3], [4, 5, 6], [7]], 5) == [[1, 2, 3], [4, 5]]
    assert shortened([[1, 2, 3]], 5) == [[1, 2, 3]]
