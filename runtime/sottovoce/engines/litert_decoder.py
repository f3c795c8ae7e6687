"""Whisper's decoder on LiteRT: rows with caches of their own through one graph.

Rows run side by side in one run: their tokens, caches and frames stand one behind the other in the graph's inputs, and
what belongs to another row is hidden. What is in the inputs stays there for as long as the same rows run, so that a
step copies nothing but its own keys and values. The graph is that of
`sottovoce_compiler.lowerings.litert.whisper`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.litert_model import HIDDEN, LiteRtModel, hidden_new, hidden_past
from sottovoce.engines.shapes import SpeechShape
from sottovoce.errors import BundleError

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Sizes = dict[str, tuple[int, ...]]

DECODER = "decoder.tflite"


@dataclass(frozen=True, eq=False, slots=True)
class Audio:
    """What the decoder attends to: keys and values by the graph's names, (1, heads, f, head width), and their bias
    (f,)."""

    cross: Mapping[str, Float]
    bias: Float


@dataclass(eq=False, slots=True)
class Row:
    """One row being decoded: its audio, and key and value of every layer, (layers, 2, heads, capacity, head width)."""

    audio: Audio
    past: Float
    length: int = 0

    @property
    def capacity(self) -> int:
        """Tokens there is room for."""
        return int(self.past.shape[3])

    def copy(self, *, past: bool) -> "Row":
        """Another row of the same audio, with what was said so far or from the start."""
        return Row(self.audio, self.past.copy(), self.length) if past else Row(self.audio, np.zeros_like(self.past))


class Decoder:
    """The graph, and which rows are in its inputs at the moment."""

    def __init__(self, bundle: Bundle, threads: int, shape: SpeechShape) -> None:
        self._shape = shape
        self._names = [(f"key_{i}", f"value_{i}") for i in range(shape.layers)]
        self._graph = self._open(bundle, threads)
        self._audios: list[Audio] = []  # those that are in the inputs
        self._rows: list[Row] = []  # those whose past is
        # LiteRT lays weights out for its kernels when sizes are first known: now, and not at the first token.
        nothing = Audio({}, np.zeros(1, np.float32))
        self._graph.resize(self._sizes([self.row(nothing, 1)], [nothing], 1, 1))

    def _open(self, bundle: Bundle, threads: int) -> LiteRtModel:
        cache = (1, self._shape.heads, -1, self._shape.head_width)
        new = {name: cache for pair in self._names for name in pair}
        heads = bundle.manifest.model.get("alignment_heads")
        if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
            raise BundleError(f"the manifest has alignment_heads = {heads!r:.50}; a whole number from 1 on is needed")
        inputs: Sizes = {
            **dict.fromkeys(("tokens", "token_positions", "logit_positions"), (-1,)),
            **dict.fromkeys(("past_bias", "new_bias", "key_bias"), (1, 1, -1, -1)),
            **{f"past_{name}": size for name, size in new.items()},
            **cross_shapes(self._shape),
        }
        results: Sizes = {
            "logits": (1, -1, self._shape.vocab_size),
            "alignment": (1, heads, -1, -1),
            **new,
        }
        return LiteRtModel(bundle, DECODER, threads, inputs, results)

    def row(self, audio: Audio, capacity: int) -> Row:
        """A row without a past."""
        shape = self._shape
        return Row(audio, np.zeros((shape.layers, 2, shape.heads, capacity, shape.head_width), np.float32))

    def run(self, rows: Sequence[Row], tokens: Int, wanted: Sequence[int]) -> tuple[Float, Float]:
        """Feed `tokens` (rows, t) to rows of one capacity: logits (rows, len(wanted), vocabulary), alignment (rows,
        alignment heads, t, frames of the longest)."""
        count, length = tokens.shape
        audios = list(dict.fromkeys(row.audio for row in rows))
        graph, lengths = self._graph, [row.length for row in rows]
        if graph.resize(self._sizes(rows, audios, length, len(wanted))):
            self._audios, self._rows = [], []
            graph.put("new_bias", hidden_new(count, length))
        self._put_audios(rows, audios, length)
        self._put_past(rows)
        graph.put("tokens", tokens.reshape(-1))
        graph.put("token_positions", np.add.outer(lengths, np.arange(length)).reshape(-1))
        graph.put("logit_positions", np.add.outer(np.arange(count) * length, np.asarray(wanted)).reshape(-1))
        graph.put("past_bias", hidden_past(lengths, rows[0].capacity, length))
        graph.run()
        self._keep(rows, length)
        logits = graph.result("logits").reshape(count, len(wanted), self._shape.vocab_size)
        return logits, _by_row(graph.result("alignment")[0], rows, audios, length)

    def _sizes(self, rows: Sequence[Row], audios: Sequence[Audio], length: int, wanted: int) -> Sizes:
        total, capacity = len(rows) * length, len(rows) * rows[0].capacity
        frames = sum(audio.bias.size for audio in audios)
        cross, cache = (((1, self._shape.heads, size, self._shape.head_width)) for size in (frames, capacity))
        return {
            **dict.fromkeys(("tokens", "token_positions"), (total,)),
            "logit_positions": (len(rows) * wanted,),
            "new_bias": (1, 1, total, total),
            "past_bias": (1, 1, 1 if len(rows) == 1 else total, capacity),
            "key_bias": (1, 1, 1 if len(audios) == 1 else total, frames),
            **{f"past_{name}": cache for pair in self._names for name in pair},
            **dict.fromkeys(cross_shapes(self._shape), cross),
        }

    def _put_audios(self, rows: Sequence[Row], audios: list[Audio], length: int) -> None:
        if not _same(self._audios, audios):
            start = 0
            for audio in audios:
                end = start + audio.bias.size
                for name, value in audio.cross.items():
                    self._graph.put_at(name, (slice(None), slice(None), slice(start, end)), value)
                start = end
            self._audios = audios
        elif _same(self._rows, rows):
            return
        self._graph.put("key_bias", _hidden_audio(rows, audios, length))

    def _put_past(self, rows: Sequence[Row]) -> None:
        if _same(self._rows, rows):
            return
        for at, row in enumerate(rows):
            # All of it: what is hidden is multiplied by 0, and must be a number.
            place = (0, slice(None), slice(at * row.capacity, (at + 1) * row.capacity))
            for i, pair in enumerate(self._names):
                for kind, name in enumerate(pair):
                    self._graph.put_at(f"past_{name}", place, row.past[i, kind])
        self._rows = list(rows)

    def _keep(self, rows: Sequence[Row], length: int) -> None:
        """Keys and values of the run's tokens, to the rows and to the graph's inputs."""
        for i, pair in enumerate(self._names):
            for kind, name in enumerate(pair):
                new = self._graph.result(name)[0]
                for at, row in enumerate(rows):
                    value, end = new[:, at * length : (at + 1) * length], row.length + length
                    row.past[i, kind, :, row.length : end] = value
                    start = at * row.capacity
                    place = (0, slice(None), slice(start + row.length, start + end))
                    self._graph.put_at(f"past_{name}", place, value)
        for row in rows:
            row.length += length


def cross_shapes(shape: SpeechShape) -> Sizes:
    """The cross-attention's keys and values, by their names in both graphs."""
    size = (1, shape.heads, -1, shape.head_width)
    return {f"cross_{kind}_{i}": size for i in range(shape.layers) for kind in ("key", "value")}


def side_by_side(parts: Sequence[Float]) -> Float:
    """Alignments (heads, t, f) of several rows as one (rows, heads, t, longest f), 0 beyond a row's own."""
    out = np.zeros((len(parts), *parts[0].shape[:2], max(part.shape[2] for part in parts)), np.float32)
    for row, part in enumerate(parts):
        out[row, :, :, : part.shape[2]] = part
    return out


def _by_row(alignment: Float, rows: Sequence[Row], audios: Sequence[Audio], length: int) -> Float:
    """(heads, rows * t, frames of all) -> (rows, heads, t, longest f)."""
    ends = np.cumsum([audio.bias.size for audio in audios])
    bounds = {audio: (int(end) - audio.bias.size, int(end)) for audio, end in zip(audios, ends, strict=True)}
    parts = []
    for at, row in enumerate(rows):
        start, end = bounds[row.audio]
        parts.append(alignment[:, at * length : (at + 1) * length, start:end])
    return side_by_side(parts)


def _hidden_audio(rows: Sequence[Row], audios: Sequence[Audio], length: int) -> Float:
    """What is added to the scores of frames, (1, 1, rows * t, frames of all): each row hears its own audio. Of one
    audio (1, 1, 1, f), which all tokens share."""
    if len(audios) == 1:
        return audios[0].bias[None, None, None]
    parts = []
    for row in rows:
        mine = [audio.bias if audio is row.audio else np.full_like(audio.bias, HIDDEN) for audio in audios]
        parts.append(np.tile(np.concatenate(mine), (length, 1)))
    return np.concatenate(parts)[None, None]


def _same(first: Sequence[object], second: Sequence[object]) -> bool:
    return len(first) == len(second) and all(one is other for one, other in zip(first, second, strict=True))
