"""llama.cpp's own quantizer, through the library inside the xllamacpp wheel, and data that is hard to quantize."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

FLOATS = ctypes.POINTER(ctypes.c_float)


@cache
def _library() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("xllamacpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).glob("xllamacpp*.so"):
            library = ctypes.CDLL(str(path))
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_quantize_chunk.argtypes = (
                *(ctypes.c_int, FLOATS, ctypes.c_void_p),
                *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, FLOATS),
            )
            return library
    return None


def ggml_quantize(array: np.ndarray, kind: GGMLQuantizationType, importance: np.ndarray | None = None) -> np.ndarray:
    """`array` (rows, columns) as llama.cpp quantizes it, (rows, bytes per row); skips where it is not installed."""
    library = _library()
    if library is None:
        pytest.skip("the reference is ggml_quantize_chunk in the xllamacpp wheel: pip install xllamacpp")
    array = np.ascontiguousarray(array, np.float32)
    block, size = GGML_QUANT_SIZES[kind]
    rows, columns = array.shape
    packed = np.zeros((rows, columns // block * size), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32).ctypes.data_as(FLOATS)
    library.ggml_quantize_chunk(kind, array.ctypes.data_as(FLOATS), packed.ctypes.data, 0, rows, columns, weights)
    return packed


@cache
def _hard(rows: int, columns: int) -> dict[str, np.ndarray]:
    """Data by what is hard about it, each (rows, columns)."""
    random = np.random.default_rng(rows * 10_000 + columns)
    normal = random.normal(0, 1, (rows, columns))
    outlier = normal.copy()
    outlier[rows // 2, columns // 2] = -1e5
    mixed = normal.copy()
    mixed[random.random(mixed.shape) < 0.8] = 0
    mixed[:, : columns // 2] = 0
    signed_zeros = np.where(random.random(normal.shape) < 0.5, 0.0, -0.0)
    return {
        "normal": normal,
        "weights": normal * 0.02,
        "heavy tails": random.standard_t(1.5, normal.shape),
        "zeros": np.zeros(normal.shape),
        "negative zeros": signed_zeros,
        "positive or zero": np.where(normal > 0, normal, signed_zeros),
        "constant": np.full(normal.shape, 0.37),
        "constant blocks": np.repeat(random.normal(0, 1, (rows, columns // 32)), 32, axis=1),
        "far from zero": -1000 + normal * 1e-3,
        "half empty": mixed,
        "denormal": normal * 1e-40,
        "near denormal": normal * 1e-37,
        "tiny": normal * 1e-20,
        "around the smallest block": normal * 1e-15,
        "below half precision": normal * 1e-8,
        "large": normal * 1e4,
        "beyond half precision": normal * 1e6,
        "huge": normal * 1e18,
        "outlier": outlier,
        "negative": -np.abs(normal),
        "positive": np.abs(normal),
        "alternating": np.tile([1.0, -1.0], (rows, columns // 2)),
        "few levels": np.round(normal * 3),
        "ramp": np.linspace(-1, 1, rows * columns).reshape(rows, columns),
        "scales apart": normal * 10.0 ** random.integers(-12, 6, (rows, columns // 32)).repeat(32, axis=1),
    }


HARD = tuple(_hard(1, 32))


def hard(name: str, rows: int, columns: int) -> np.ndarray:
    return np.asarray(_hard(rows, columns)[name], np.float32)


def importances(columns: int) -> dict[str, np.ndarray]:
    """Importance matrices (columns,) by what they are like."""
    random = np.random.default_rng(columns)
    usual = random.chisquare(1, columns)
    sparse = np.where(random.random(columns) < 0.5, 0, usual)
    sparse[: columns // 2] = 0
    return {
        name: np.asarray(values, np.float32)
        for name, values in {
            "usual": usual,
            "sparse": sparse,
            "zero": np.zeros(columns),
            "steep": usual * 10.0 ** random.integers(-8, 8, columns),
        }.items()
    }
