"""rms_norm in plain torch; the CPU's path. Keeps one number a row beside its input."""

import torch

from sottovoce_kernels.rows import buffers, chunks, wide


def forward(
    x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, residual: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y, x + residual (x itself without one), both (T, W) in x's dtype, and 1 / sqrt(mean(x^2) + eps), (T,) float32.

    x, residual (T, W); weight (W,). Computed in float32, float64 in float64.
    """
    total = x if residual is None else x + residual
    dtype = wide(x.dtype)
    factor = weight.to(dtype) + offset
    y, scale = total.new_empty(total.shape), total.new_empty(total.shape[0], dtype=dtype)
    (work,) = buffers(total, 1)
    for rows in chunks(total):
        values = work[: rows.stop - rows.start].copy_(total[rows])
        norm = torch.linalg.vector_norm(values, dim=1)
        scale[rows] = norm.square_().div_(values.shape[1]).add_(eps).rsqrt_()
        y[rows] = values.mul_(scale[rows, None]).mul_(factor)
    return y, total, scale


def backward(
    grad_y: torch.Tensor,
    grad_total: torch.Tensor | None,
    total: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    offset: float,
    weight_wanted: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x (that of the residual is the same) and, where it is wanted, of the weight.

    `grad_total`: of the second output, None where nothing came. `total`, `scale`: what `forward` gave.
    """
    dtype, width = wide(total.dtype), total.shape[1]
    factor = weight.to(dtype) + offset
    grad_x = total.new_empty(total.shape)
    grad_weight = torch.zeros_like(factor) if weight_wanted else None
    work = buffers(total, 3)
    for rows in chunks(total):
        values, grad, product = work[:, : rows.stop - rows.start]
        torch.mul(values.copy_(total[rows]), grad.copy_(grad_y[rows]), out=product)
        r = scale[rows]
        pull = torch.mv(product, factor).mul_(r.pow(3)).div_(-width)
        if grad_weight is not None:
            grad_weight += torch.mv(product.t(), r)
        result = torch.mul(grad, factor, out=product).mul_(r[:, None]).addcmul_(values, pull[:, None])
        grad_x[rows] = result if grad_total is None else result.add_(grad_total[rows])
    return grad_x, None if grad_weight is None else grad_weight.to(weight.dtype)
