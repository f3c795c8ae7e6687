"""What Whisper's encoder and decoder layers are made of: frozen weights that adapters can be attached to.

Knows one layer at a time; knows neither recordings nor texts: what attends to what is for a `Mix` to know.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sottovoce_compiler.finetune.model.adapted import AdaptedLinear, apply_together
from sottovoce_compiler.finetune.model.decoder import Kept
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_kernels.gelu_bias import gelu_bias
from sottovoce_kernels.layer_norm import layer_norm
from sottovoce_kernels.quantized import quantize

NORM_EPS = 1e-5
# Query, key and value, each (rows, heads, head width), to the same of what each row found.
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
MixQuery = Callable[[torch.Tensor], torch.Tensor]  # where keys and values are known already


class Reader:
    """Tensors of a checkpoint by the names that transformers gives them, below `model.`. The matrices of the layers may
    be quantized."""

    def __init__(self, checkpoint: Checkpoint, kept: Kept) -> None:
        self._tensors, self._kept = checkpoint.tensors, kept

    def tensor(self, name: str) -> nn.Parameter:
        """A frozen tensor in the dtype of the computation."""
        return nn.Parameter(self._load(name).to(self._kept.device, self._kept.dtype), requires_grad=False)

    def norm(self, name: str) -> nn.Parameter:
        """The same in float32."""
        return nn.Parameter(self._load(name).to(self._kept.device), requires_grad=False)

    def linear(self, name: str, *, bias: bool = True) -> AdaptedLinear:
        """A matrix that an adapter can be attached to."""
        weight, kind = self._load(f"{name}.weight").to(self._kept.device), self._kept.quantize
        found = weight.to(self._kept.dtype) if kind is None else quantize(weight, kind)
        return AdaptedLinear(found, self.tensor(f"{name}.bias").data if bias else None)

    def _load(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._tensors.load(f"model.{name}"), dtype=np.float32))


class Norm(nn.Module):
    """Layer norm of x, or of x and what is added to it, which then comes back too."""

    def __init__(self, read: Reader, name: str) -> None:
        super().__init__()
        self.weight, self.bias = read.norm(f"{name}.weight"), read.norm(f"{name}.bias")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = layer_norm(x, self.weight, self.bias, NORM_EPS)
        return normed

    def after(self, x: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normed, total = layer_norm(added, self.weight, self.bias, NORM_EPS, residual=x)
        return normed, total


class Attention(nn.Module):
    """The four matrices of an attention; rows (T, width) in and out, heads (T, heads, head width) between."""

    def __init__(self, read: Reader, name: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = read.linear(f"{name}.q_proj")
        self.k_proj = read.linear(f"{name}.k_proj", bias=False)
        self.v_proj = read.linear(f"{name}.v_proj")
        self.out_proj = read.linear(f"{name}.out_proj")

    def to_itself(self, x: torch.Tensor, mix: Mix) -> torch.Tensor:
        """Attention of rows to rows."""
        q, k, v = apply_together(x, (self.q_proj, self.k_proj, self.v_proj))
        return self.out(mix(self._split(q), self._split(k), self._split(v)))

    def to_others(self, x: torch.Tensor, mix: MixQuery) -> torch.Tensor:
        """Attention to keys and values that `mix` knows."""
        return self.out(mix(self._split(self.q_proj(x))))

    def keys_and_values(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of what `to_others` attends to."""
        k, v = apply_together(frames, (self.k_proj, self.v_proj))
        return self._split(k), self._split(v)

    def out(self, mixed: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.out_proj(mixed.flatten(-2))
        return rows

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.heads, -1)


class EncoderLayer(nn.Module):
    """Rows (T, width) in and out."""

    def __init__(self, read: Reader, name: str, heads: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = Norm(read, f"{name}.self_attn_layer_norm")
        self.self_attn = Attention(read, f"{name}.self_attn", heads)
        self.final_layer_norm = Norm(read, f"{name}.final_layer_norm")
        self.fc1, self.fc2 = read.linear(f"{name}.fc1"), read.linear(f"{name}.fc2")

    def forward(self, x: torch.Tensor, mix: Mix) -> torch.Tensor:
        attended = self.self_attn.to_itself(self.self_attn_layer_norm(x), mix)
        return feed_forward(self, *self.final_layer_norm.after(x, attended))


class DecoderLayer(nn.Module):
    """Rows (T, width) in and out; `cross` attends to what was heard."""

    def __init__(self, read: Reader, name: str, heads: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = Norm(read, f"{name}.self_attn_layer_norm")
        self.self_attn = Attention(read, f"{name}.self_attn", heads)
        self.encoder_attn_layer_norm = Norm(read, f"{name}.encoder_attn_layer_norm")
        self.encoder_attn = Attention(read, f"{name}.encoder_attn", heads)
        self.final_layer_norm = Norm(read, f"{name}.final_layer_norm")
        self.fc1, self.fc2 = read.linear(f"{name}.fc1"), read.linear(f"{name}.fc2")

    def forward(self, x: torch.Tensor, mix: Mix, cross: MixQuery) -> torch.Tensor:
        attended = self.self_attn.to_itself(self.self_attn_layer_norm(x), mix)
        normed, x = self.encoder_attn_layer_norm.after(x, attended)
        attended = self.encoder_attn.to_others(normed, cross)
        return feed_forward(self, *self.final_layer_norm.after(x, attended))


def feed_forward(layer: EncoderLayer | DecoderLayer, normed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """x with what the layer's two matrices make of its norm."""
    rows: torch.Tensor = layer.fc2(gelu_bias(layer.fc1(normed)))
    return x + rows
