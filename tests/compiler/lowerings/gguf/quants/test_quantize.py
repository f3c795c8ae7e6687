"""Every format against llama.cpp's own quantizer, byte for byte, on data that is hard to quantize."""

import hashlib

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.gguf import quants
from sottovoce_compiler.lowerings.gguf.quants import QUANTIZERS, quantize

from .quantize_case import HARD, ggml_quantize, hard, importances

Kind = GGMLQuantizationType
FITTING = [
    (kind, columns)
    for kind in QUANTIZERS
    for columns in (32, 64, 256, 576, 640, 2048)
    if columns % GGML_QUANT_SIZES[kind][0] == 0
]
# SHA-256 (first 16 digits) of what ggml_quantize_chunk made of `_made_of_integers`, without and with importance.
RECORDED = {
    "F32": ("bb3d700bbf75b880", "bb3d700bbf75b880"),
    "F16": ("d30ec109db17b334", "d30ec109db17b334"),
    "BF16": ("1fbef6b2e2f95bbc", "1fbef6b2e2f95bbc"),
    "Q8_0": ("bc5501a0c77059cf", "bc5501a0c77059cf"),
    "Q4_0": ("0c79e592eb13db73", "daa39325af0bdbcd"),
    "Q4_1": ("38dbfae575c80127", "69b73317b798cce2"),
    "Q5_0": ("e6deb614ec64144c", "b299ef9c94961cbf"),
    "Q5_1": ("289c152dd0b6570f", "28dc9a9a498903d0"),
    "Q4_K": ("212c8a43f16076e4", "99e111ac19b27d03"),
    "Q5_K": ("3812643bf4e6cb70", "6367622bce21f7c2"),
    "Q6_K": ("ce85ba84b2665512", "1be52d68227b40a4"),
    "IQ4_NL": ("bda2e3f55235d8aa", "24b1c556304ef22a"),
}


def _made_of_integers() -> tuple[np.ndarray, np.ndarray]:
    """(24, 768) and (768,): the same on every machine, unlike a library's normal distribution."""
    mixed = (np.arange(24 * 768, dtype=np.uint32) * np.uint32(2654435761)) ^ np.uint32(0x5BD1E995)
    spread = ((mixed >> 8).astype(np.int64) % 20011 - 10005).astype(np.float32)
    weights = (spread * np.float32(2**-14) * np.abs(spread) * np.float32(2**-14)).reshape(24, 768)
    weights[3, :256] = 0
    return weights, ((mixed[:768] >> 5) % 977).astype(np.float32) / np.float32(64)


def differing(array: np.ndarray, kind: Kind, importance: np.ndarray | None) -> int:
    return int((quantize(array, kind, importance, threads=1) != ggml_quantize(array, kind, importance)).sum())


@pytest.mark.parametrize(("kind", "columns"), FITTING)
def test_every_format_is_byte_for_byte_what_llama_cpp_writes(kind: Kind, columns: int) -> None:
    wrong = {
        (name, rows): count
        for name in HARD
        for rows in (1, 7)
        if (count := differing(hard(name, rows, columns), kind, None))
    }
    assert not wrong


@pytest.mark.parametrize("which", ["usual", "sparse", "zero", "steep"])
@pytest.mark.parametrize(("kind", "columns"), FITTING)
def test_every_format_with_an_importance_matrix_is_too(kind: Kind, columns: int, which: str) -> None:
    importance = importances(columns)[which]
    wrong = {name: count for name in HARD if (count := differing(hard(name, 3, columns), kind, importance))}
    assert not wrong


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_where_llama_cpp_is_not_installed_its_recorded_bytes_are_met(kind: Kind) -> None:
    weights, importance = _made_of_integers()
    found = [hashlib.sha256(quantize(weights, kind, given)).hexdigest()[:16] for given in (None, importance)]
    assert tuple(found) == RECORDED[kind.name]


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_threads_and_chunks_do_not_show_in_the_result(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, importance = _made_of_integers()
    whole = quantize(weights, kind, importance, threads=1)
    monkeypatch.setattr(quants, "CHUNK", 768 * 5)
    assert np.array_equal(quantize(weights, kind, importance, threads=3), whole)


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q6_K, Kind.Q5_0, Kind.Q4_1, Kind.IQ4_NL])
def test_more_blocks_than_are_searched_at_once_are_quantized_alike(kind: Kind, importance: bool) -> None:
    rows = np.random.default_rng(5).normal(0, 1, (700, 512)).astype(np.float32)  # 11200 blocks of 32 in two chunks
    weights = importances(512)["usual"] if importance else None
    assert np.array_equal(quantize(rows, kind, weights, threads=2), ggml_quantize(rows, kind, weights))


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (Kind.Q8_0, 0.006),
        (Kind.Q6_K, 0.022),
        (Kind.Q5_K, 0.04),
        (Kind.Q4_K, 0.08),
        (Kind.Q4_0, 0.1),
        (Kind.IQ4_NL, 0.09),
    ],
)
def test_what_is_read_back_is_close(kind: Kind, most: float) -> None:
    weights = np.random.default_rng(1).normal(0, 1, (16, 512)).astype(np.float32)
    error = dequantize(quantize(weights, kind), kind) - weights
    assert most / 2 < float(np.sqrt((error**2).mean())) < most


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q4_0, Kind.Q5_1, Kind.IQ4_NL])
def test_columns_of_importance_are_kept_better_than_the_others(kind: Kind) -> None:
    weights = np.random.default_rng(2).normal(0, 1, (64, 256)).astype(np.float32)
    importance = np.where(np.arange(256) % 4 == 0, 100, 1).astype(np.float32)

    def error(given: np.ndarray | None) -> float:
        return float(((dequantize(quantize(weights, kind, given), kind) - weights)[:, ::4] ** 2).mean())

    assert error(importance) < 0.9 * error(None)


def test_no_rows_give_no_bytes() -> None:
    assert quantize(np.zeros((0, 256), np.float32), Kind.Q4_K).shape == (0, 144)


def test_a_format_without_a_quantizer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no quantizer for IQ1_S; there are F32, .*IQ4_NL"):
        quantize(np.zeros((1, 256), np.float32), Kind.IQ1_S)


@pytest.mark.parametrize("shape", [(2, 40), (64,), (2, 2, 32)])
def test_a_shape_that_no_block_divides_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Q8_0 needs \(rows, a multiple of 32 columns\), not"):
        quantize(np.zeros(shape, np.float32), Kind.Q8_0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(value: float) -> None:
    weights = np.ones((3, 64), np.float32)
    weights[2, 33] = value
    with pytest.raises(InputError, match="infinite or not a number"):
        quantize(weights, Kind.Q4_0)


def test_importance_must_fit_the_columns_and_be_finite_and_not_negative() -> None:
    weights = np.ones((3, 64), np.float32)
    with pytest.raises(ValueError, match=r"importance of shape \(32,\) for rows of 64"):
        quantize(weights, Kind.Q4_0, np.ones(32, np.float32))
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="negative or not finite"):
            quantize(weights, Kind.Q4_0, np.full(64, value, np.float32))
