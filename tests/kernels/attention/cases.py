"""Cases that every implementation of attention has to get right, and the truth: one whole matrix of scores."""

from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from sottovoce_kernels.segments import Segments


@dataclass(frozen=True)
class Case:
    """Lengths of segments, heads and their width, and the mask. `keys` None: the queries' own."""

    lengths: tuple[int, ...]
    keys: tuple[int, ...] | None = None
    heads: int = 2
    shared: int = 2
    width: int = 16
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    biased: bool = False
    scale: float = field(default=0.3)

    @property
    def options(self) -> dict[str, object]:
        return {"causal": self.causal, "scale": self.scale, "window": self.window, "softcap": self.softcap}

    def segments(self, device: str = "cpu") -> tuple[Segments, Segments | None]:
        keys = None if self.keys is None else Segments.of(self.keys, device)
        return Segments.of(self.lengths, device), keys

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k, v and the bias of keys."""
        generator = torch.Generator().manual_seed(sum(self.lengths) + self.width)
        rows, key_rows = sum(self.lengths), sum(self.keys or self.lengths)
        shapes = ((rows, self.heads), (key_rows, self.shared), (key_rows, self.shared))
        q, k, v = (torch.randn(*shape, self.width, generator=generator, dtype=torch.float64) for shape in shapes)
        bias = torch.rand(key_rows, generator=generator) * 3 if self.biased else None
        return q.to(dtype), k.to(dtype), v.to(dtype), bias


CASES = {
    "causal": Case((7, 1, 20, 33)),
    "equal lengths": Case((5, 5, 5, 12, 12)),
    "not causal": Case((7, 1, 20, 33), causal=False),
    "cross": Case((3, 17, 1), keys=(21, 2, 40), causal=False),
    "grouped": Case((18, 9), heads=6, shared=2),
    "one key for all heads": Case((18, 9), heads=3, shared=1, causal=False),
    "window": Case((40, 3, 17), window=6),
    "window of one": Case((9, 20), window=1),
    "window wider than all": Case((9, 20), window=64),
    "softcap": Case((19, 6), softcap=2.0, heads=4, shared=2),
    "softcap, not causal": Case((19, 6), softcap=2.0, causal=False),
    "bias": Case((19, 6), keys=(30, 9), biased=True, causal=False, heads=4),
    "bias, causal, window, softcap": Case((35, 6), biased=True, window=9, softcap=4.0, heads=4, shared=2),
    "odd width": Case((19, 6), width=24, heads=4, shared=2),
    "one row each": Case((1, 1, 1), heads=4, shared=2),
}


def truth(case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention with one matrix of scores over all segments, in the dtype of the inputs; differentiable."""
    group = case.heads // case.shared
    k, v = (one.repeat_interleave(group, 1) for one in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) * case.scale
    if case.softcap is not None:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    if bias is not None:
        scores = scores + bias.to(q.dtype)
    weights = scores.masked_fill(~_seen(case), -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v)


def _seen(case: Case) -> Tensor:
    keys = case.keys or case.lengths
    seen = torch.zeros(sum(case.lengths), sum(keys), dtype=torch.bool)
    for length, key_length, end, key_end in zip(
        case.lengths, keys, accumulate(case.lengths), accumulate(keys), strict=True
    ):
        i, j = torch.arange(length)[:, None], torch.arange(key_length)[None, :]
        own = (j <= i) if case.causal else (j >= 0).expand(length, key_length)
        if case.window is not None:
            own = own & (i - j < case.window)
        seen[end - length : end, key_end - key_length : key_end] = own
    return seen
