"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the parameters that are trained.

Knows that matrices decay and vectors (a DoRA's magnitudes) do not. The rate of a step comes from outside.
"""

from collections.abc import Iterable, Sequence

import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adamw(parameters: Iterable[torch.nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer, in one pass over memory where this device has that."""
    given = list(parameters)
    groups = [
        {"params": [one for one in given if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in given if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=BETAS,
        eps=EPSILON,
        fused=_can_fuse(given),
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """What the next step's rate is."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _can_fuse(parameters: Sequence[torch.Tensor]) -> bool:
    return all(one.device.type in ("cpu", "cuda") and one.dtype.is_floating_point for one in parameters)
