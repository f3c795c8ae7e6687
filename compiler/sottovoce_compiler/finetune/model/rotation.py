"""Cosines and sines of rotary positions (arXiv 2104.09864) for the tokens of a batch, as the source model has them.

Knows a `Rope` and where segments lie. Computed once a batch, for all layers that share them.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sottovoce_compiler.families.causal import CausalSpec, Rope
from sottovoce_kernels.segments import Segments


@dataclass(frozen=True, slots=True)
class Rotation:
    """`cos` and `sin` (T, width / 2) float32 of each token's angles."""

    cos: torch.Tensor
    sin: torch.Tensor


class Rotations:
    """The rotations of a model's layers; None for a layer without positions."""

    def __init__(self, spec: CausalSpec) -> None:
        self._layers = [spec.rope_of(layer) if spec.turns(layer) else None for layer in range(spec.layers)]

    def at(self, positions: torch.Tensor, segments: Segments) -> list[Rotation | None]:
        """For each layer, of tokens at `positions` (T,) in `segments`."""
        return self.for_lengths(positions, segments.lengths, segments.lengths)

    def for_lengths(
        self, positions: torch.Tensor, rows: tuple[int, ...], lengths: tuple[int, ...]
    ) -> list[Rotation | None]:
        """The same where segment i has `rows[i]` of the tokens and will be `lengths[i]` positions long: LongRoPE has
        other factors for long texts, which are chosen for each text by itself."""
        found = {rope: _rotation(rope, positions, rows, lengths) for rope in set(self._layers) if rope is not None}
        return [None if rope is None else found[rope] for rope in self._layers]


def frequencies(rope: Rope, length: int) -> torch.Tensor:
    """Radians a position of each pair, (width / 2,) float32, in a text of `length` positions."""
    found = rope.base ** (-np.arange(0, rope.width, 2, dtype=np.float64) / rope.width) / rope.linear_factor
    short = rope.short_factors is not None and length <= (rope.original_context or 0)
    factors = rope.short_factors if short else rope.factors
    return torch.from_numpy(found / np.asarray(factors or 1.0)).float()


def _rotation(rope: Rope, positions: torch.Tensor, rows: tuple[int, ...], lengths: tuple[int, ...]) -> Rotation:
    per_token = frequencies(rope, 0).to(positions.device)
    if rope.short_factors is not None:
        each = torch.stack([frequencies(rope, length) for length in lengths])
        per_token = each.repeat_interleave(torch.tensor(rows), dim=0).to(positions.device)
    # In float32 as the source computes them, whose angles at far positions are rounded the same way.
    angles = positions.float()[:, None] * per_token
    return Rotation(angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor)
