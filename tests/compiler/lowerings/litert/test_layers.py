"""Every layer, run by LiteRT, against its definition in NumPy or torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sottovoce_compiler.lowerings.litert import layers
from sottovoce_compiler.lowerings.litert.graph import Graph
from sottovoce_compiler.lowerings.litert.stores import Int4Blocks, Int8Rows, KeepFloat, Store

from .run_case import run, write

Float = NDArray[np.float32]


def drawn(*shape: int, seed: int = 0) -> Float:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def result(folder: Path, x: Float, build: Callable[[Graph, int], int], shape: tuple[int, ...]) -> Float:
    """What `build` makes of an input `x` whose first size but 1 is not known before."""

    def graph(g: Graph) -> None:
        g.output(build(g, g.input("x", shape)), "y")

    return np.asarray(run(write(folder, graph), {"x": x})["y"], np.float32)


def test_norms(tmp_path: Path) -> None:
    x, gamma, beta = drawn(7, 48) * 3 + 1, drawn(48, seed=1), drawn(48, seed=2)
    found = result(
        tmp_path, x, lambda g, i: layers.layer_norm(g, i, g.weight("a", gamma), g.weight("b", beta)), (-1, 48)
    )
    wanted = functional.layer_norm(
        *(torch.from_numpy(one) for one in (x,)), (48,), *map(torch.from_numpy, (gamma, beta))
    )
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    found = result(tmp_path, x, lambda g, i: layers.rms_norm(g, i, g.weight("a", gamma), 1e-6), (-1, 48))
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gamma, atol=1e-5)


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(tmp_path: Path, approximate: bool) -> None:
    x = drawn(5, 40) * 3
    found = result(tmp_path, x, lambda g, i: layers.gelu(g, i, approximate=approximate), (-1, 40))
    wanted = functional.gelu(torch.from_numpy(x), approximate="tanh" if approximate else "none")
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize(
    ("store", "error"),
    [(KeepFloat(), 1e-6), (KeepFloat(half=True), 1e-3), (Int8Rows(), 0.012), (Int4Blocks(32), 0.11)],
    ids=["fp32", "fp16", "int8", "int4"],
)
def test_products_and_rows_of_a_matrix(tmp_path: Path, store: Store, error: float, rows: int) -> None:
    weight, bias, x = drawn(64, 96), drawn(64, seed=1), drawn(rows, 96, seed=2)

    def close(found: Float, wanted: Float) -> None:
        assert np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)) < error

    close(
        result(tmp_path, x, lambda g, i: layers.linear(g, i, "w", store(weight), bias), (-1, 96)),
        x @ weight.T + bias,
    )

    def looked_up(g: Graph) -> None:
        g.output(layers.lookup(g, "w", store(weight), g.input("t", (-1,), "int32")), "y")

    tokens = np.array([3, 0, 63, 3], np.int32)
    close(np.asarray(run(write(tmp_path, looked_up), {"t": tokens})["y"], np.float32), weight[tokens])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_convolutions_over_time(tmp_path: Path, stride: int, half: bool) -> None:
    kernel, bias, x = drawn(6, 4, 3), drawn(6, seed=1), drawn(1, 1, 20, 4, seed=2)
    stored = kernel.astype(np.float16) if half else kernel
    found = result(
        tmp_path, x, lambda g, i: layers.conv(g, layers.pad(g, i, 2, 1, 1), "k", stored, bias, stride), (1, 1, -1, 4)
    )
    wanted = functional.conv1d(*map(torch.from_numpy, (x[0, 0].T[None], kernel, bias)), stride, padding=1)
    np.testing.assert_allclose(found[0, 0], wanted[0].T.numpy(), atol=5e-3 if half else 1e-5)


def test_cuts_and_parts(tmp_path: Path) -> None:
    x = drawn(5, 12)

    def build(g: Graph) -> None:
        i = g.input("x", (-1, 12))
        for name, part in zip("abc", layers.split(g, i, [4, 4, 4], 1), strict=True):
            g.output(part, name)
        for name, part in zip("de", layers.split(g, i, [7, 5], 1), strict=True):
            g.output(part, name)
        g.output(layers.cut(g, i, 0, 1, 99, (-1, 12)), "f")
        g.output(layers.cut(g, i, 1, 9, None, (-1, 3)), "g")

    found = run(write(tmp_path, build), {"x": x})
    wanted = {"a": x[:, :4], "b": x[:, 4:8], "c": x[:, 8:], "d": x[:, :7], "e": x[:, 7:], "f": x[1:], "g": x[:, 9:]}
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("past", [1, 9])
@pytest.mark.parametrize("new", [1, 4])
def test_attention_to_a_cache_and_to_each_other_is_attention_to_both_in_one(
    tmp_path: Path, past: int, new: int
) -> None:
    heads, width, seen = 3, 8, past // 2
    q, k, v = (drawn(1, heads, new, width, seed=seed) for seed in range(3))
    past_key, past_value = (drawn(1, heads, past, width, seed=seed) for seed in (4, 5))
    past_bias = np.where(np.arange(past) < seen, 0, -1e9).astype(np.float32)[None, None, None]
    new_bias = np.triu(np.full((new, new), -1e9, np.float32), 1)[None, None]
    names = ("q", "k", "v", "past_key", "past_value", "past_bias", "new_bias")
    values = dict(zip(names, (q, k, v, past_key, past_value, past_bias, new_bias), strict=True))

    def build(g: Graph) -> None:
        places = [g.input(name, (*value.shape[:2], -1, -1)) for name, value in values.items()]
        g.output(layers.self_attention(g, places[:3], places[3:5], places[5:]), "y")

    keys = np.concatenate([past_key[:, :, :seen], k], axis=2)
    hidden = np.concatenate([np.zeros((1, 1, new, seen), np.float32), new_bias], axis=3)
    wanted = functional.scaled_dot_product_attention(
        *map(torch.from_numpy, (q, keys, np.concatenate([past_value[:, :, :seen], v], axis=2), hidden)), scale=1.0
    )
    np.testing.assert_allclose(run(write(tmp_path, build), values)["y"], wanted.numpy(), atol=1e-5)
