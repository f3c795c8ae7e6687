"""Cutting a recording into pieces that the encoder takes at once, at pauses wherever there are any.

Knows speech spans and lengths; knows nothing of models. A piece keeps the pauses inside it, so that times in it are
times in the recording less its start.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sottovoce.vad import FRAME, SAMPLE_RATE, Span

MAX_CHUNK = 29 * SAMPLE_RATE  # samples; the encoder's positions cover 30 s, and silence is put before and after
_LONGEST_PAUSE = 3 * SAMPLE_RATE  # samples of silence worth encoding to keep two spans together
_SHORTEST_REST = SAMPLE_RATE  # samples that a cut leaves over at least: a sliver of sound has words invented for it

Float = NDArray[np.float32]


def chunks(spans: Sequence[Span], probabilities: Float, wanted: int) -> list[Span]:
    """Pieces of at most `wanted` samples (at most 29 s) that cover every span, cut between spans or at the quietest
    frame."""
    limit = min(wanted, MAX_CHUNK)
    pieces = [piece for span in spans for piece in _split(span, probabilities, limit)]
    merged: list[Span] = []
    for piece in pieces:
        if merged and piece.end - merged[-1].start <= limit and piece.start - merged[-1].end <= _LONGEST_PAUSE:
            merged[-1] = Span(merged[-1].start, piece.end)
        else:
            merged.append(piece)
    return merged


def _split(span: Span, probabilities: Float, limit: int) -> list[Span]:
    """A span in parts of at most `limit`, cut where speech is least likely in the second half of what fits."""
    parts, start = [], span.start
    while span.end - start > limit:
        latest = max(start + FRAME, min(start + limit, span.end - _SHORTEST_REST))
        first, last = (start + limit // 2) // FRAME, latest // FRAME
        window = probabilities[first:last]
        cut = (first + int(window.argmin())) * FRAME + FRAME // 2 if window.size else latest
        cut = min(max(cut, start + FRAME), latest)
        parts.append(Span(start, cut))
        start = cut
    return [*parts, Span(start, span.end)]
