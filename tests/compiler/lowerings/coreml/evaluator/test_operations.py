"""Each operation of the evaluator against what coremltools' own reference of it computes, through a saved package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from sottovoce_compiler.lowerings.coreml.package import save
from sottovoce_compiler.lowerings.coreml.program import FLOAT, HALF, INT, function, program, specification, tensor
from sottovoce_compiler.lowerings.coreml.stand_in import runners

X = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
SQUARE = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
NUMBERS = np.arange(6, dtype=np.int32)
GELU = 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)))
MEAN, SPREAD = X.mean(axis=-1, keepdims=True), X.std(axis=-1, keepdims=True)

CASES: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "add": (lambda x: mb.add(x=x, y=np.float32(2)), X + 2),
    "sub": (lambda x: mb.sub(x=x, y=SQUARE), X - SQUARE),
    "mul": (lambda x: mb.mul(x=x, y=SQUARE), X * SQUARE),
    "real_div": (lambda x: mb.real_div(x=x, y=np.float32(3)), X / 3),
    "maximum": (lambda x: mb.maximum(x=x, y=np.float32(0.1)), np.maximum(X, 0.1)),
    "minimum": (lambda x: mb.minimum(x=x, y=np.float32(0.1)), np.minimum(X, 0.1)),
    "square": (lambda x: mb.square(x=x), X * X),
    "tanh": (lambda x: mb.tanh(x=x), np.tanh(X)),
    "silu": (lambda x: mb.silu(x=x), X / (1 + np.exp(-X))),
    "gelu by tanh": (lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), GELU),
    "rsqrt": (lambda x: mb.rsqrt(x=mb.square(x=x), epsilon=np.float32(0.5)), 1 / np.sqrt(X * X + 0.5)),
    "log": (lambda x: mb.log(x=mb.square(x=x), epsilon=np.float32(0.5)), np.log(X * X + 0.5)),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x, axes=[1], keep_dims=True), X.mean(axis=1, keepdims=True)),
    "reduce_max": (lambda x: mb.reduce_max(x=x, axes=[1, 2], keep_dims=False), X.max(axis=(1, 2))),
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[-1], keep_dims=False), X.sum(axis=-1)),
    "softmax": (lambda x: mb.softmax(x=x, axis=-1), np.exp(X) / np.exp(X).sum(axis=-1, keepdims=True)),
    "layer_norm": (
        lambda x: mb.layer_norm(x=x, axes=[2], gamma=SQUARE[0], beta=SQUARE[1], epsilon=np.float32(1e-6)),
        (X - MEAN) / SPREAD * SQUARE[0] + SQUARE[1],
    ),
    "matmul": (lambda x: mb.matmul(x=x, y=SQUARE, transpose_y=True), X @ SQUARE.T),
    "matmul, the first turned": (lambda x: mb.matmul(x=x, y=SQUARE[None], transpose_x=True), X[0].T @ SQUARE[None]),
    "linear": (lambda x: mb.linear(x=x, weight=SQUARE, bias=SQUARE[:, 0]), X @ SQUARE.T + SQUARE[:, 0]),
    "pad, reflected": (
        lambda x: mb.pad(x=x, pad=[0, 0, 0, 0, 2, 1], mode="reflect"),
        np.pad(X, ((0, 0), (0, 0), (2, 1)), "reflect"),
    ),
    "pad, with zeros": (lambda x: mb.pad(x=x, pad=[0, 0, 1, 2, 0, 0]), np.pad(X, ((0, 0), (1, 2), (0, 0)))),
    "reshape": (lambda x: mb.reshape(x=x, shape=[2, -1, 3]), X.reshape(2, 4, 3)),
    "transpose": (lambda x: mb.transpose(x=x, perm=[2, 0, 1]), X.transpose(2, 0, 1)),
    "expand_dims": (lambda x: mb.expand_dims(x=x, axes=[0, 2]), X[None, :, None]),
    "squeeze": (lambda x: mb.squeeze(x=x, axes=[0]), X[0]),
    "concat": (lambda x: mb.concat(values=[x, x], axis=1), np.concatenate([X, X], axis=1)),
    "split": (lambda x: mb.split(x=x, split_sizes=[1, 2, 3], axis=-1)[1], X[..., 1:3]),
    "slice_by_index": (
        lambda x: mb.slice_by_index(x=x, begin=[0, 1, 0], end=[1, 4, 0], end_mask=[False, False, True]),
        X[:, 1:4],
    ),
    "slice_update": (
        lambda x: mb.slice_update(x=x, update=SQUARE[None, :2], begin=[0, 1, 0], end=[1, 3, 6]),
        np.concatenate([X[:, :1], SQUARE[None, :2], X[:, 3:]], axis=1),
    ),
    "gather": (lambda x: mb.gather(x=x, indices=np.array([3, 0], np.int32), axis=1), X[:, [3, 0]]),
    "select": (
        lambda x: mb.select(cond=mb.greater(x=x, y=np.float32(0)), a=x, b=np.float32(-1)),
        np.where(X > 0, X, -1),
    ),
    "less": (lambda x: mb.cast(x=mb.less(x=x, y=np.float32(0)), dtype="fp32"), (X < 0).astype(np.float32)),
    "cast": (lambda x: mb.cast(x=x, dtype="int32"), np.trunc(X).astype(np.int32)),
}  # fmt: skip


def evaluated(of: Callable[[Any], Any], folder: Path, kind: Any = FLOAT) -> np.ndarray:
    made = function("iOS18", {"x": tensor(X.shape, kind)}, lambda x: {"y": of(x)})
    save(program({"main": made}), folder / "One.mlpackage", specification("iOS18"), {})
    return runners(folder / "One.mlpackage")["main"].run({"x": X})["y"]


@pytest.mark.parametrize("name", CASES)
def test_an_operation_computes_what_its_definition_says(name: str, tmp_path: Path) -> None:
    of, wanted = CASES[name]
    found = evaluated(of, tmp_path)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_the_sum_of_products_over_its_window(stride: int, tmp_path: Path) -> None:
    weight = np.random.default_rng(2).normal(size=(5, 4, 3)).astype(np.float32)

    def of(x: Any) -> Any:
        return mb.conv(x=x, weight=weight, bias=weight[:, 0, 0], strides=[stride], pad_type="custom", pad=[1, 1])

    padded = np.pad(X, ((0, 0), (0, 0), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=2)[:, :, ::stride]
    wanted = np.einsum("nctk,ock->not", windows, weight) + weight[:, 0, 0][None, :, None]
    np.testing.assert_allclose(evaluated(of, tmp_path), wanted, rtol=2e-5, atol=2e-6)


def test_float16_is_rounded_after_each_operation_and_overflows_as_it_does(tmp_path: Path) -> None:
    found = evaluated(lambda x: mb.mul(x=mb.add(x=x, y=np.float16(300)), y=np.float16(300)), tmp_path, HALF)
    with np.errstate(over="ignore"):
        wanted = (X.astype(np.float16) + np.float16(300)) * np.float16(300)
    assert found.dtype == np.float16
    assert (found == wanted).all()
    assert np.isinf(found).all()


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    made = function("iOS17", {"x": tensor([6], INT)}, lambda x: {"y": mb.add(x=x, y=np.int32(7))})
    save(program({"main": made}), tmp_path / "One.mlpackage", specification("iOS17"), {})
    found = runners(tmp_path / "One.mlpackage")["main"].run({"x": NUMBERS})["y"]
    assert found.dtype == np.int32
    assert (found == NUMBERS + 7).all()
