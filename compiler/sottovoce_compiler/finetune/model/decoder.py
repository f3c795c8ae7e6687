"""A decoder-only language model as it is trained: one forward pass for every family, over the operations of
`sottovoce_kernels`, on examples that lie one behind the other without padding.

Made from a `CausalModel`, one tensor at a time, so that nothing but the wanted dtype is ever held whole. Norms are
computed in float32, and each takes in the residual that is added before it. Knows a `CausalSpec`, not a family's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sottovoce_compiler.families.causal import CausalModel, CausalSpec, role_shape
from sottovoce_compiler.finetune.batches import PackedTokens
from sottovoce_compiler.finetune.model import Loss
from sottovoce_compiler.finetune.model.adapted import AdaptedLinear, apply_together
from sottovoce_compiler.finetune.model.rotation import Rotation, Rotations
from sottovoce_kernels.attention import attention
from sottovoce_kernels.geglu import geglu
from sottovoce_kernels.linear_cross_entropy import linear_cross_entropy
from sottovoce_kernels.quantized import Kind, quantize
from sottovoce_kernels.rms_norm import rms_norm
from sottovoce_kernels.rope import rope
from sottovoce_kernels.segments import Segments
from sottovoce_kernels.swiglu import swiglu

NORMS = ("attention_norm", "ffn_norm", "q_norm", "k_norm", "post_attention_norm", "post_ffn_norm")
_MULTIMODAL = ("language_model.model.", "model.language_model.")  # how such checkpoints' names begin

# Queries (T, heads, D), keys and values (T, kv_heads, D) of a layer -> what was attended to (T, heads, D).
Attend = Callable[["DecoderLayer", torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Kept:
    """How frozen weights are held: `dtype` of the computation, and what layers' matrices are quantized to (None: they
    are in `dtype` too). The embedding and the head are never quantized."""

    dtype: torch.dtype = torch.float32
    quantize: Kind | None = None
    device: torch.device | str = "cpu"


class DecoderLayer(nn.Module):
    """Attention and feed-forward of one layer, without the residual sums at its two ends."""

    def __init__(self, model: CausalModel, index: int, kept: Kept) -> None:
        super().__init__()
        self.spec, self.index = model.spec, index
        reader = _Reader(model, kept)
        self.linears = nn.ModuleDict()  # by the first of the roles that the matrix holds
        self.inputs = self._group(reader, ("q", "k", "v"))
        self.gates = self._group(reader, ("gate", "up"))
        for role in ("o", "down"):
            self._group(reader, (role,))
        self.norms = nn.ParameterDict(
            {role: reader.norm(role, index) for role in NORMS if role in model.spec.layer_roles()}
        )

    def _group(self, reader: "_Reader", roles: Sequence[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Makes the matrices of `roles`, those of one stored tensor as one; their keys and what they are split into."""
        groups: dict[str, list[str]] = {}
        for role in roles:
            groups.setdefault(reader.model.names(role, self.index), []).append(role)
        for fused in groups.values():
            self.linears[fused[0]] = reader.linear(fused, self.index)
        return tuple((fused[0], tuple(role_shape(self.spec, role)[0] for role in fused)) for fused in groups.values())

    def forward(
        self, delta: torch.Tensor | None, residual: torch.Tensor, rotation: Rotation | None, attend: Attend
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, width) that is yet to be added to the second, (T, width). `delta` is the same of the layer before, None
        for the first."""
        x, residual = self._norm("attention_norm", delta, residual)
        attended = attend(self, *self._queries_keys_values(x, rotation)).flatten(1)
        delta = self._after("post_attention_norm", self._linear("o")(attended))
        x, residual = self._norm("ffn_norm", delta, residual)
        gate, up = self._together(x, self.gates)
        activate = swiglu if self.spec.activation == "silu" else geglu
        return self._after("post_ffn_norm", self._linear("down")(activate(gate, up))), residual

    def _queries_keys_values(
        self, x: torch.Tensor, rotation: Rotation | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        spec = self.spec
        q, k, v = (part.view(len(part), -1, spec.head_width) for part in self._together(x, self.inputs))
        if spec.qk_norm:
            q = rms_norm(q, self.norms["q_norm"], spec.norm_eps)
            k = rms_norm(k, self.norms["k_norm"], spec.norm_eps)
        if rotation is not None:
            q, k = rope(q, k, rotation.cos, rotation.sin)
        return q, k, v

    def _together(self, x: torch.Tensor, group: Sequence[tuple[str, tuple[int, ...]]]) -> list[torch.Tensor]:
        outputs = apply_together(x, [self._linear(key) for key, _ in group])
        parts: list[torch.Tensor] = []
        for output, (_, sizes) in zip(outputs, group, strict=True):
            parts += [output] if len(sizes) == 1 else torch.split(output, list(sizes), dim=1)
        return parts

    def _norm(self, role: str, delta: torch.Tensor | None, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of the sum of both, and the sum."""
        weight, eps = self.norms[role], self.spec.norm_eps
        if delta is None:
            return rms_norm(residual, weight, eps), residual
        return rms_norm(delta, weight, eps, residual=residual)

    def _after(self, role: str, delta: torch.Tensor) -> torch.Tensor:
        return rms_norm(delta, self.norms[role], self.spec.norm_eps) if role in self.norms else delta

    def _linear(self, key: str) -> AdaptedLinear:
        return cast(AdaptedLinear, self.linears[key])


class Decoder(nn.Module):
    """A `TrainingModel` of packed tokens. Nothing of it is trained until adapters are attached to `linears()`."""

    def __init__(self, model: CausalModel, kept: Kept | None = None) -> None:
        super().__init__()
        kept = kept or Kept()
        self.spec: CausalSpec = model.spec
        self.dtype = kept.dtype
        self.checkpointing = False
        reader = _Reader(model, kept)
        self.embed = reader.matrix("embed")
        self.head = self.embed if self.spec.tied else reader.matrix("head")
        self.final_norm = reader.norm("final_norm", None)
        self.layers = nn.ModuleList(DecoderLayer(model, layer, kept) for layer in range(self.spec.layers))
        self.rotations = Rotations(self.spec)
        self._names = {
            (layer, key): peft_name(model, key, layer)
            for layer, one in enumerate(self.layers)
            for key in cast(DecoderLayer, one).linears
        }

    def forward(self, batch: PackedTokens) -> Loss:
        """The sum of the cross entropies (nats) of the labelled tokens, and how many they are."""
        total = linear_cross_entropy(self.hidden(batch), self.head, batch.labels, softcap=self.spec.final_softcap)
        return Loss(total, batch.labelled)

    def hidden(self, batch: PackedTokens) -> torch.Tensor:
        """(T, width) after the last norm: what the head reads."""
        rotations = self.rotations.at(batch.positions, batch.segments)
        return self.run(batch.tokens, rotations, attend_within(batch.segments))

    def run(self, tokens: torch.Tensor, rotations: Sequence[Rotation | None], attend: Attend) -> torch.Tensor:
        """(T, width) after the last norm, of tokens (T,) that look at each other by `attend`."""
        residual = functional.embedding(tokens, self.embed)
        if self.spec.embedding_scale != 1.0:
            residual = residual * self.spec.embedding_scale
        delta: torch.Tensor | None = None
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for layer, rotation in zip(self.layers, rotations, strict=True):
            if again:
                delta, residual = checkpoint(layer, delta, residual, rotation, attend, use_reentrant=False)
            else:
                delta, residual = layer(delta, residual, rotation, attend)
        assert delta is not None
        return rms_norm(delta, self.final_norm, self.spec.norm_eps, residual=residual)[0]

    def logits(self, batch: PackedTokens) -> torch.Tensor:
        """(T, vocabulary) float32. Never made in training: for tests and evaluation."""
        return self.logits_of(self.hidden(batch))

    def logits_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """(T, vocabulary) float32 of what `hidden` or `run` gave."""
        logits = functional.linear(hidden, self.head).float()
        cap = self.spec.final_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def linears(self) -> Mapping[str, AdaptedLinear]:
        """Every matrix that may get an adapter, by the module's name as PEFT has it."""
        return {
            name: cast(AdaptedLinear, cast(DecoderLayer, self.layers[layer]).linears[key])
            for (layer, key), name in self._names.items()
        }

    def adapted(self) -> Mapping[str, AdaptedLinear]:
        """Those of `linears()` that have one."""
        return {name: layer for name, layer in self.linears().items() if layer.lora is not None}


def attend_within(segments: Segments) -> Attend:
    """Each token sees its own segment up to itself, in layers that slide only the last of it."""

    def attend(layer: DecoderLayer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(
            q, k, v, segments, causal=True, scale=layer.spec.attention_scale, window=window_of(layer.spec, layer.index)
        )

    return attend


def window_of(spec: CausalSpec, layer: int) -> int | None:
    """Positions that a token of `layer` sees, itself included; None: all before it."""
    return spec.sliding_window if spec.slides(layer) else None


def peft_name(model: CausalModel, role: str, layer: int) -> str:
    """The module that holds a role, as transformers' class of the model names it; stored names may lack its prefix."""
    stored = model.names(role, layer)
    prefix = "model.language_model." if stored.startswith(_MULTIMODAL) else "model."
    return prefix + stored[stored.index("layers.") :].removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Weights of a `CausalModel` as they are kept."""

    model: CausalModel
    kept: Kept

    def matrix(self, role: str) -> nn.Parameter:
        return nn.Parameter(self._load(role, None).to(self.kept.device, self.kept.dtype), requires_grad=False)

    def norm(self, role: str, layer: int | None) -> nn.Parameter:
        return nn.Parameter(self._load(role, layer).to(self.kept.device), requires_grad=False)

    def linear(self, roles: Sequence[str], layer: int) -> AdaptedLinear:
        """The matrices of `roles` below each other, with their biases where the model has some."""
        kept, spec = self.kept, self.model.spec
        weight = _below([self._load(role, layer) for role in roles])
        biases = [self._load(f"{role}_bias", layer) for role in roles if f"{role}_bias" in spec.layer_roles()]
        bias = _below(biases).to(kept.device, kept.dtype) if biases else None
        if kept.quantize is None:
            return AdaptedLinear(weight.to(kept.device, kept.dtype), bias)
        return AdaptedLinear(quantize(weight.to(kept.device), kept.quantize), bias)

    def _load(self, role: str, layer: int | None) -> torch.Tensor:
        return torch.from_numpy(cast(Any, self.model.load(role, layer)))


def _below(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
