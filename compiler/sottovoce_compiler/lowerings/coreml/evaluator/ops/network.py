"""The layers of networks: products, convolutions, norms."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None) -> Tensor:
    if transpose_x is not None and bool(transpose_x):
        x = x.transpose(-1, -2)
    if transpose_y is not None and bool(transpose_y):
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """(n, channels, *D) with (out, channels / groups, *K)."""
    rank = x.dim() - 2
    steps = [1] * rank if strides is None else strides.tolist()
    spread = [1] * rank if dilations is None else dilations.tolist()
    count = 1 if groups is None else int(groups)
    if pad_type == "custom":
        assert pad is not None
        x = torch.nn.functional.pad(x, _inside_out(pad.tolist()))
    elif pad_type != "valid":
        raise NotImplementedError(f"conv with pad_type {pad_type!r}")
    if _is_point(weight, steps, count):
        # oneDNN takes a product of many columns for a convolution well, one of few badly.
        return _point(x, weight, bias)
    of = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}[rank]
    return of(x, weight, bias, stride=steps, dilation=spread, groups=count)


def _is_point(weight: Tensor, steps: list[int], groups: int) -> bool:
    return set(weight.shape[2:]) == {1} and set(steps) == {1} and groups == 1


def _point(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one point is a product of matrices."""
    y = weight.flatten(1) @ x.flatten(2)
    if bias is not None:
        y = y + bias[:, None]
    return y.reshape(x.shape[0], weight.shape[0], *x.shape[2:])


def _inside_out(pad: list[int]) -> list[int]:
    """Pairs from the first axis on -> pairs from the last axis on."""
    pairs = [pad[at : at + 2] for at in range(0, len(pad), 2)]
    return [value for pair in reversed(pairs) for value in pair]


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    amounts = _inside_out(pad.tolist())
    if mode == "constant":
        return torch.nn.functional.pad(x, amounts, value=0.0 if constant_val is None else float(constant_val))
    if mode != "reflect":
        raise NotImplementedError(f"pad with mode {mode!r}")
    while amounts and amounts[-2:] == [0, 0]:
        amounts = amounts[:-2]
    return torch.nn.functional.pad(x, amounts, mode="reflect")


def softmax(x: Tensor, axis: Tensor | None = None) -> Tensor:
    return torch.softmax(x, dim=-1 if axis is None else int(axis))


def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """Over `axes`, which follow each other; `gamma` and `beta` have their sizes."""
    over = list(range(x.dim())) if axes is None else sorted(int(one) % x.dim() for one in axes)
    centred = x - x.mean(dim=over, keepdim=True)
    variance = (centred * centred).mean(dim=over, keepdim=True)
    y = centred * torch.rsqrt(variance + (1e-5 if epsilon is None else float(epsilon)))
    behind = [1] * (x.dim() - 1 - over[-1])
    if gamma is not None:
        y = y * gamma.reshape(*gamma.shape, *behind)
    return y if beta is None else y + beta.reshape(*beta.shape, *behind)


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "matmul": matmul,
    "linear": linear,
    "conv": conv,
    "pad": pad,
    "softmax": softmax,
    "layer_norm": layer_norm,
}
