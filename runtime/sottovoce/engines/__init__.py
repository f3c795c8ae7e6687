"""What a transcriber needs of an engine: two small Protocols. One file an engine; nothing here imports one."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sottovoce.gguf import GgufFile

Float = NDArray[np.float32]
Int = NDArray[np.int64]


class DecodeBatch(Protocol):
    """Rows being decoded together. Every row sees its own audio and its own past, and none of the others."""

    @property
    def rows(self) -> int: ...

    def run(self, tokens: Int, logit_positions: Sequence[int]) -> Float:
        """Feed `tokens` (rows, length); logits (rows, len(logit_positions), vocabulary) float32, valid until the next
        run."""
        ...

    def alignment(self) -> Float:
        """Cross-attention of the last run: (rows, alignment heads, length, keys) float32; audio frames come first."""
        ...

    def restart(self) -> None:
        """Forget the tokens fed so far; the audio stays."""
        ...

    def fork(self, rows: Sequence[int], *, past: bool) -> Self:
        """A batch of these rows, in this order, a row as often as it is named; with their past, or from the start."""
        ...

    def reorder(self, rows: Sequence[int]) -> None:
        """Give row i the past of `rows[i]`, where all rows hear the same audio (beam search)."""
        ...


class SpeechEngine(Protocol):
    """Runs one model's encoder and decoder."""

    def load(self) -> None: ...

    def start(self, clips: Sequence[Float], capacity: int) -> DecodeBatch:
        """Encode clips, each (n,) float32 at 16 kHz of at most 30 s, as rows with room for `capacity` tokens each."""
        ...

    def bytes_per_second(self) -> int:
        """Memory that a second of encoded audio holds while it is being decoded."""
        ...

    def close(self) -> None: ...


class BundleEngine(SpeechEngine, Protocol):
    """The engine of a speech bundle, which says what its tokens are and may take adapters."""

    @property
    def vocab_size(self) -> int:
        """How many logits a position has; every token is below."""
        ...

    @property
    def adapters(self) -> int:
        """How many adapters are attached."""
        ...

    def attach(self, file: GgufFile, scale: float) -> None:
        """Add an adapter, `scale` times. Raises InputError for one that does not fit, BundleError where the bundle has
        no room for adapters."""
        ...

    def detach(self, keep: int = 0) -> None:
        """Remove all adapters but the first `keep`."""
        ...
