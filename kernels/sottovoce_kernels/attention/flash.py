"""attention by the flash-attn package, where it is installed. Knows its function for packed sequences alone."""

from importlib import import_module

from torch import Tensor

from sottovoce_kernels.segments import Segments

from .mask import Mask


def attention(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments, mask: Mask) -> Tensor:
    """As the operation says, without `key_bias`; differentiable, and the same gradients each time."""
    module = import_module("flash_attn")
    back = -1 if mask.window is None else mask.window - 1  # keys before a query's own, -1 for all
    out: Tensor = module.flash_attn_varlen_func(
        *(q, k, v, queries.offsets, keys.offsets, queries.longest, keys.longest),
        softmax_scale=mask.scale,
        causal=mask.causal,
        window_size=(back, 0 if mask.causal else -1),
        softcap=mask.softcap or 0.0,
        deterministic=True,
    )
    return out
