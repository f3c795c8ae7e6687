"""Which keys a query sees, and what is done to scores. Knows no implementation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sottovoce_kernels.segments import Segments


@dataclass(frozen=True, slots=True)
class Mask:
    """The score of a query at position i and a key at position j of the same segment:

        s = softcap tanh(scale q . k / softcap) + bias_j      scale q . k + bias_j where softcap is None

    `causal`: only keys with j <= i are seen; `window`: of these, only those with j > i - window. Softcapping is Gemma
    2's (arXiv 2408.00118, section 2).
    """

    causal: bool
    scale: float
    window: int | None = None
    softcap: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values that mean nothing."""
        if self.window is not None and (self.window < 1 or not self.causal):
            raise ValueError(f"window {self.window}, causal {self.causal}; it is 1 or more, and causal")
        if self.softcap is not None and not self.softcap > 0.0:
            raise ValueError(f"softcap {self.softcap}; it is positive, or None for scores as they are")

    def seen(self, begin: int, end: int, keys: int) -> tuple[int, int]:
        """First key and the key after the last that any query of `begin` to `end` sees, of `keys`."""
        first = 0 if self.window is None else max(begin - self.window + 1, 0)
        return first, min(end, keys) if self.causal else keys


def check(
    q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments, mask: Mask, key_bias: Tensor | None
) -> None:
    """Raises ValueError where shapes, dtypes and segments do not go together."""
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or q.shape[2] != k.shape[2] or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}; they are (T, H, D), (S, Hk, D) and "
            "(S, Hk, D), with H a multiple of Hk"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q of {q.dtype}, k of {k.dtype}, v of {v.dtype}; cast them to one")
    for name, rows, segments in (("queries", q, queries), ("keys", k, keys)):
        if segments.total != len(rows):
            raise ValueError(f"{name} with segments of {segments.total} rows in all, and {len(rows)} rows")
    if len(queries.lengths) != len(keys.lengths):
        counts = len(queries.lengths), len(keys.lengths)
        raise ValueError(f"{counts[0]} segments of queries and {counts[1]} of keys; they go in pairs")
    if mask.causal and queries.lengths != keys.lengths:
        raise ValueError("causal attention from one sequence to another of a different length; it is to itself")
    if key_bias is not None and (key_bias.shape != k.shape[:1] or key_bias.dtype != torch.float32):
        raise ValueError(
            f"key_bias {tuple(key_bias.shape)} of {key_bias.dtype} for {len(k)} keys; it is ({len(k)},) of float32"
        )
