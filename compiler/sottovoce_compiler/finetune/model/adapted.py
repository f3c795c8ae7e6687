"""A frozen matrix with a low-rank adapter composed on top: LoRA (arXiv 2106.09685), rank-stabilized (arXiv 2312.03732)
and weight-decomposed (DoRA, arXiv 2402.09353), over plain or quantized weights (QLoRA, arXiv 2305.14314).

Knows one matrix, and how several that read the same input are multiplied in one pass. Doesn't know which matrix of a
model it is, or how adapters lie on disk.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from sottovoce_kernels.lora_linear import Projection, lora_linear
from sottovoce_kernels.quantized import Kind, QuantizedWeight

Method = Literal["lora", "rslora", "dora"]
METHODS: tuple[Method, ...] = ("lora", "rslora", "dora")

_ROWS = 1024  # of a weight that are held in float32 at once where its norms are taken


@dataclass(frozen=True, slots=True)
class Lora:
    """What an adapter computes: W x + scale * B A x; with `dora`, each row of W + scale * B A brought to a length that
    is trained. `dropout` is the share of x that A does not see while training. `strength` is the share of what was
    learned that is used outside training: W + strength * scale * B A lies on the line from the model as it was to what
    it became, where both what is new and what was known before often do better than at its end (WiSE-FT, Wortsman et
    al. 2022, arXiv 2109.01903)."""

    rank: int = 16
    alpha: float = 32.0
    rank_stabilized: bool = False
    dora: bool = False
    dropout: float = 0.0
    strength: float = 1.0

    @classmethod
    def of(cls, method: Method, rank: int, alpha: float, dropout: float = 0.0, strength: float = 1.0) -> "Lora":
        """The adapter of a method's name."""
        return cls(rank, alpha, method == "rslora", method == "dora", dropout, strength)

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) where it is rank-stabilized: what is trained with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    @property
    def used_scale(self) -> float:
        """What is measured, merged and saved with."""
        return self.strength * self.scale


class AdaptedLinear(nn.Module):
    """y = x W^T + bias for x (..., K), with W (N, K) frozen, and what an attached adapter adds.

    `lora_a` (rank, K), `lora_b` (N, rank) and DoRA's `magnitude` (N,) are trained, in float32 whatever W's dtype.
    Attaching and detaching never touch W or the bias.
    """

    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None
    magnitude: nn.Parameter | None
    _row_squares: torch.Tensor | None  # (N,) float32: squared length of each row of W, where DoRA needs it

    def __init__(self, weight: torch.Tensor | QuantizedWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        self._kind: Kind | None = None
        if isinstance(weight, QuantizedWeight):
            self._kind, self._parts = weight.kind, tuple(weight.tensors())
            for name, tensor in weight.tensors().items():
                self.register_buffer(f"weight_{name}", tensor)
        else:
            self.plain = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.lora: Lora | None = None
        for name in ("lora_a", "lora_b", "magnitude"):
            self.register_parameter(name, None)
        self.register_buffer("_row_squares", None, persistent=False)

    @property
    def weight(self) -> torch.Tensor | QuantizedWeight:
        """W (N, K) as it is kept."""
        if self._kind is None:
            return self.plain
        tensors = {name: self.get_buffer(f"weight_{name}") for name in self._parts}
        return QuantizedWeight.from_tensors(self._kind, (self.rows, self.columns), tensors)

    @property
    def device(self) -> torch.device:
        """Where W lies."""
        return self.weight.device

    def attach(self, lora: Lora, generator: torch.Generator | None = None) -> None:
        """Start an adapter that changes nothing yet: A uniform within sqrt(1 / K) as PEFT draws it, B zero, DoRA's
        lengths those of W's rows. `generator` is the CPU's; one that was attached before is dropped."""
        self.detach()
        a = torch.empty(lora.rank, self.columns)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(a.to(self.device))
        self.lora_b = nn.Parameter(torch.zeros(self.rows, lora.rank, device=self.device))
        self.lora = lora
        if lora.dora:
            self._row_squares = self._squares()
            self.magnitude = nn.Parameter(self._row_squares.sqrt())

    def detach(self) -> None:
        """Take the adapter off: what is left computes what the base computed, bit for bit."""
        self.lora, self.lora_a, self.lora_b, self.magnitude, self._row_squares = None, None, None, None, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y (..., N) in x's dtype for x (..., K)."""
        return apply_together(x, [self])[0]

    @torch.no_grad()
    def merged(self) -> torch.Tensor:
        """(N, K) float32: the one matrix that computes what W and the adapter compute together."""
        weight = self._dense()
        if self.lora is None:
            return weight
        assert self.lora_a is not None and self.lora_b is not None
        weight = weight + self.lora.used_scale * (self.lora_b.float() @ self.lora_a.float())
        if self.magnitude is not None:
            weight *= (self.magnitude.float() / torch.linalg.vector_norm(weight, dim=1))[:, None]
        return weight

    def stretch(self) -> torch.Tensor | None:
        """(N,) float32: what each output is multiplied by, magnitude / ||W + scale B A||, where the adapter is DoRA.

        The norm is a constant to the gradient (DoRA, section 4.3). Its square is ||w||^2 + 2 scale <w, b A> +
        scale^2 ||b A||^2 a row, so that no matrix of W's size is made.
        """
        if self.lora is None or self.magnitude is None:
            return None
        assert self.lora_a is not None and self.lora_b is not None and self._row_squares is not None
        with torch.no_grad():
            a, b, scale = self.lora_a.float(), self.lora_b.float(), self.lora.scale
            crossed = torch.cat([rows @ a.T for rows in self._dense_rows()])
            squares = self._row_squares + scale * (b * (2 * crossed + scale * (b @ (a @ a.T)))).sum(1)
            norm = squares.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        return self.magnitude / norm

    def projection(self, *, adapted: bool, biased: bool) -> Projection:
        """What `lora_linear` is given."""
        lora = self.lora if adapted else None
        if lora is None:
            return Projection(self.weight, self.bias if biased else None, None, None, 0.0)
        scale = lora.scale if self.training else lora.used_scale
        return Projection(self.weight, self.bias if biased else None, self.lora_a, self.lora_b, scale)

    def _dense(self) -> torch.Tensor:
        weight = self.weight
        return weight.dequantize(torch.float32) if isinstance(weight, QuantizedWeight) else weight.detach().float()

    def _dense_rows(self) -> Iterable[torch.Tensor]:
        """W in float32, `_ROWS` rows at a time where it is plain."""
        weight = self.weight
        if isinstance(weight, QuantizedWeight):
            return [weight.dequantize(torch.float32)]
        return (rows.float() for rows in torch.split(weight.detach(), _ROWS))

    def _squares(self) -> torch.Tensor:
        return torch.cat([rows.square().sum(1) for rows in self._dense_rows()])


def apply_together(x: torch.Tensor, layers: Sequence[AdaptedLinear]) -> tuple[torch.Tensor, ...]:
    """What each of `layers` makes of the same x (..., K): a tuple of (..., N_i), x read once for all of them.

    Dropout is on the adapters' inputs alone, so they are then multiplied apart from the frozen weights.
    """
    dropping = [layer.training and layer.lora is not None and layer.lora.dropout > 0 for layer in layers]
    outputs = lora_linear(
        x,
        [
            layer.projection(adapted=not dropped, biased=layer.magnitude is None)
            for layer, dropped in zip(layers, dropping, strict=True)
        ],
    )
    return tuple(
        _finish(layer, output, x if dropped else None)
        for layer, output, dropped in zip(layers, outputs, dropping, strict=True)
    )


def _finish(layer: AdaptedLinear, output: torch.Tensor, dropped_from: torch.Tensor | None) -> torch.Tensor:
    """`output` with what `lora_linear` left to do."""
    if layer.lora is None:
        return output
    if dropped_from is not None:
        assert layer.lora_a is not None and layer.lora_b is not None
        seen = functional.dropout(dropped_from, layer.lora.dropout)
        low = functional.linear(seen, layer.lora_a.to(seen.dtype))
        output = output + layer.lora.scale * functional.linear(low, layer.lora_b.to(seen.dtype))
    stretch = layer.stretch()
    if stretch is None:
        return output
    output = output * stretch.to(output.dtype)
    return output if layer.bias is None else output + layer.bias


def attach_all(layers: Mapping[str, AdaptedLinear], lora: Lora, seed: int = 0) -> None:
    """Attach an adapter of one kind to each; the same seed and order give the same A, on any device."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        layer.attach(lora, generator)


@dataclass(frozen=True, slots=True)
class MergeDifference:
    """How far the merged matrices compute from base and adapter apart: the largest difference over the largest
    output, and the module where it is."""

    relative: float
    module: str


@torch.no_grad()
def merge_difference(layers: Mapping[str, AdaptedLinear], rows: int = 8, seed: int = 0) -> MergeDifference:
    """Held against each other in float32 on `rows` random inputs a matrix, so that a wrong scale or a lost magnitude
    is seen before anything is written."""
    generator = torch.Generator().manual_seed(seed)
    worst = MergeDifference(0.0, "")
    for name, layer in layers.items():
        x = torch.randn(rows, layer.columns, generator=generator).to(layer.device)
        merged = functional.linear(x, layer.merged(), None if layer.bias is None else layer.bias.float())
        apart = _in_float32(layer, x)
        found = float((merged - apart).abs().max() / merged.abs().max().clamp_min(1e-30))
        if not found <= worst.relative:  # not a number is the worst of all
            worst = MergeDifference(found, name)
    return worst


def _in_float32(layer: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    """Base and adapter apart, without dropout and whatever dtype W is kept in."""
    output = torch.cat([x @ rows.T for rows in layer._dense_rows()], dim=1)
    if layer.lora is not None and layer.lora_a is not None and layer.lora_b is not None:
        output = output + layer.lora.used_scale * (x @ layer.lora_a.float().T) @ layer.lora_b.float().T
    stretch = layer.stretch()
    output = output if stretch is None else output * stretch
    return output if layer.bias is None else output + layer.bias.float()
