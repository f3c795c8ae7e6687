"""Our quantizers beside ggml's own, on the tensors of a real model: bytes that differ, and seconds of each.

ggml's is called through ctypes on as many threads as ours, a share of the rows each.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from chat_plan import ChatModel, Plan
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from chat_stages import Json, say
from sottovoce.engines.llama_cpp.library import load_library
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.model import gguf_tensors
from sottovoce_compiler.lowerings.gguf.quants import QUANTIZERS, quantize
from sottovoce_compiler.sources import resolve

Float, Bytes = NDArray[np.float32], NDArray[np.uint8]
_FLOATS = ctypes.POINTER(ctypes.c_float)
_CHUNK = (ctypes.c_int, _FLOATS, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _FLOATS)


def run(plan: Plan, model: ChatModel) -> Json:
    """For every type, without and with an importance matrix (random, the same for both)."""
    matrices = dict(_matrices(model.spec, plan.quantized_values))
    reference = ggml()
    found: Json = {"tensors": len(matrices)}
    for kind in QUANTIZERS:
        if kind is GGMLQuantizationType.F32:
            continue
        fitting = [a for a in matrices.values() if a.shape[1] % GGML_QUANT_SIZES[kind][0] == 0]
        say(f"  {kind.name}: {len(fitting)} tensors")
        found[kind.name] = {
            "plain": _compared(fitting, kind, False, plan.threads, reference),
            "importance": _compared(fitting, kind, True, plan.threads, reference),
        }
    return found


def _matrices(spec: str, most: int) -> Iterator[tuple[str, Float]]:
    """Every matrix of the model, of each the first rows that are about `most` values; all of it where that is 0."""
    for name, array in gguf_tensors(language_model(resolve(spec))):
        if array.ndim == 2:
            rows = max(1, most // array.shape[1]) if most else len(array)
            yield name, np.array(array[:rows], np.float32, order="C")


def ggml() -> Callable[[Float, GGMLQuantizationType, Float | None, int], Bytes]:
    """ggml_quantize_chunk of the installed llama.cpp: (rows, columns) to (rows, bytes a row), on some threads."""
    chunk: Any = load_library().functions.ggml_quantize_chunk
    chunk.restype, chunk.argtypes = ctypes.c_size_t, _CHUNK

    def reference(array: Float, kind: GGMLQuantizationType, importance: Float | None, threads: int) -> Bytes:
        block, size = GGML_QUANT_SIZES[kind]
        rows, columns = array.shape
        packed = np.zeros((rows, columns // block * size), np.uint8)
        source = array.ctypes.data_as(_FLOATS)
        weights = None if importance is None else importance.ctypes.data_as(_FLOATS)
        step = -(-rows // threads)

        def share(first: int) -> None:
            count = min(step, rows - first)
            chunk(int(kind), source, packed.ctypes.data, first * columns, count, columns, weights)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, range(0, rows, step)))
        return packed

    return reference


def _compared(
    matrices: list[Float], kind: GGMLQuantizationType, weighed: bool, threads: int, reference: Callable[..., Bytes]
) -> Json:
    found = {"tensors": len(matrices), "values": 0, "bytes": 0, "differing": 0, "ours_s": 0.0, "ggml_s": 0.0}
    for array in matrices:
        random = np.random.default_rng(array.shape[1])
        importance = random.chisquare(1, array.shape[1]).astype(np.float32) if weighed else None
        began = time.perf_counter()
        mine = quantize(array, kind, importance, threads=threads)
        between = time.perf_counter()
        theirs = reference(array, kind, importance, threads)
        found["ours_s"] += between - began
        found["ggml_s"] += time.perf_counter() - between
        found["values"] += array.size
        found["bytes"] += mine.nbytes
        found["differing"] += int((mine != theirs).sum())
    return found
