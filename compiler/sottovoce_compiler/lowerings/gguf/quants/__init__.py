"""Weights to GGUF's block formats, byte for byte as llama.cpp quantizes them, with or without an importance matrix.

Knows formats and the searches behind them; which tensor gets which format is `recipe`'s decision. The algorithms are
those of ggml (ggml-quants.c); the tests hold every format against `ggml_quantize_chunk`.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from sottovoce.errors import InputError

from . import iq4, kquants, legacy, simple
from .arithmetic import Bytes, Float

# One chunk's rows and importance (columns,) to its bytes.
Quantizer = Callable[[Float, Float | None], Bytes]

QUANTIZERS: dict[GGMLQuantizationType, Quantizer] = {
    GGMLQuantizationType.F32: simple.f32,
    GGMLQuantizationType.F16: simple.f16,
    GGMLQuantizationType.BF16: simple.bf16,
    GGMLQuantizationType.Q8_0: simple.q8_0,
    GGMLQuantizationType.Q4_0: legacy.q4_0,
    GGMLQuantizationType.Q4_1: legacy.q4_1,
    GGMLQuantizationType.Q5_0: legacy.q5_0,
    GGMLQuantizationType.Q5_1: legacy.q5_1,
    GGMLQuantizationType.Q4_K: kquants.q4_k,
    GGMLQuantizationType.Q5_K: kquants.q5_k,
    GGMLQuantizationType.Q6_K: kquants.q6_k,
    GGMLQuantizationType.IQ4_NL: iq4.iq4_nl,
}
CHUNK = 1 << 18  # values that one thread takes at a time


def quantize(
    array: Float, kind: GGMLQuantizationType, importance: Float | None = None, threads: int | None = None
) -> Bytes:
    """`array` (rows, columns) float32 as `kind`, (rows, bytes per row) uint8.

    `importance` (columns,) float32, not negative, weighs the squared error of each column in the searches; formats
    without a search ignore it. `threads` None takes one for each core. The result depends on neither threads nor
    machine. Raises ValueError for an unknown kind or shapes that do not fit, InputError for weights or importance
    that are not finite.
    """
    quantizer, row_bytes = _checked(array, kind, importance)
    rows = np.ascontiguousarray(array, dtype=np.float32)
    packed = np.empty((len(rows), row_bytes), np.uint8)
    step = max(1, CHUNK // max(1, rows.shape[1]))

    def work(start: int) -> None:
        chunk = rows[start : start + step]
        if not np.isfinite(chunk).all():
            raise InputError("a weight is infinite or not a number; the model is damaged, fetch or train it again")
        with np.errstate(all="ignore"):  # constant and empty blocks divide by zero, and what comes of it is not used
            packed[start : start + step] = quantizer(chunk, importance)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for _ in pool.map(work, range(0, len(rows), step)):
            pass
    return packed


def _checked(array: Float, kind: GGMLQuantizationType, importance: Float | None) -> tuple[Quantizer, int]:
    """The quantizer of `kind` and the bytes of one row."""
    if kind not in QUANTIZERS:
        raise ValueError(f"no quantizer for {kind.name}; there are {', '.join(known.name for known in QUANTIZERS)}")
    block, size = GGML_QUANT_SIZES[kind]
    if array.ndim != 2 or array.shape[1] % block:
        raise ValueError(f"{kind.name} needs (rows, a multiple of {block} columns), not {array.shape}")
    if importance is not None:
        if importance.shape != array.shape[1:]:
            raise ValueError(f"importance of shape {importance.shape} for rows of {array.shape[1]}")
        if not (np.isfinite(importance).all() and (importance >= 0).all()):
            raise InputError("the importance matrix has a value that is negative or not finite; make it again")
    return QUANTIZERS[kind], array.shape[1] // block * size
