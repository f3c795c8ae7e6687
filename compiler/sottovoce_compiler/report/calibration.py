"""Which columns of a model's weights matter most, measured on calibration text with the source in torch."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.families.causal import CausalModel, Float
from sottovoce_compiler.lowerings.gguf.imatrix import importance
from sottovoce_compiler.lowerings.gguf.model import weight_modules
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.report.chat_measure import source_tokenizer
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.sources.checkpoint import Checkpoint

WINDOW = 512  # tokens, each window from an empty context
MAX_TOKENS = 65_536  # the mean of squares has long settled


def importance_of(checkpoint: Checkpoint, model: CausalModel, texts: TextSet) -> Mapping[str, Float]:
    """The mean square of every column's input, (columns,) float32, by the weight's name in GGUF."""
    tokenizer = source_tokenizer(checkpoint)
    passages = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.passages]
    return importance(CausalSource(checkpoint).load(), _windows(passages), weight_modules(model))


def _windows(passages: Sequence[Sequence[int]]) -> Iterator[NDArray[np.int64]]:
    left = MAX_TOKENS
    for passage in passages:
        for start in range(0, len(passage), WINDOW):
            window = passage[start : start + min(WINDOW, left)]
            if window:
                yield np.array([window], np.int64)
                left -= len(window)
