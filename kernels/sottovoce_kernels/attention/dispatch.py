"""Which implementation of attention runs, and why, in words that a user is shown. Decides from facts alone; `facts_of`
gathers them."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from sottovoce_kernels.backend import has_triton

from .mask import Mask

Name = Literal["triton", "sdpa", "flash_attn"]

NARROWEST, WIDEST = 16, 256  # values of a head that our kernels take
HALVES = ("float16", "bfloat16")
FIRST_CAPABILITY = (8, 0)  # with tensor cores for bfloat16 and asynchronous copies
FLASH_MULTIPLE = 8  # of which flash-attn wants a head's width to be
FLASH_SOFTCAP = (2, 6)  # flash-attn's first version with softcapping


SPAN_LIMIT = 2**31  # our kernels count the values of a segment in 32 bits


@dataclass(frozen=True, slots=True)
class Facts:
    """`width`: values of a head; `span`: values in memory from the first row of the longest segment to behind its last;
    `softcap`, `key_bias`: whether scores have them; `capability`: of the GPU, None on a CPU; `triton`: whether it is
    installed; `flash_attn`: the version that is installed, None where there is none."""

    width: int
    dtype: str
    span: int = 0
    softcap: bool = False
    key_bias: bool = False
    capability: tuple[int, int] | None = None
    triton: bool = False
    flash_attn: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs, and a clause that says why."""

    name: Name
    reason: str


def choose_attention(facts: Facts) -> Choice:
    """flash-attn where it is installed and has the case, else our kernels where they have it, else torch's attention.

    Causal or not, windows and grouped heads make no difference: all three have them."""
    if facts.capability is None:
        return Choice("sdpa", "on a CPU, where torch's attention runs segment by segment with our backward")
    if obstacle := _obstacle(facts):
        return Choice("sdpa", f"{obstacle}; torch's attention runs segment by segment")
    lacking = _lacking_in_flash(facts)
    if lacking is None:
        return Choice("flash_attn", "flash-attn is installed and has this mask and head size")
    if not facts.triton:
        return Choice("sdpa", f"Triton is not installed and {lacking}; torch's attention runs segment by segment")
    return Choice("triton", f"our kernel for packed sequences: {lacking}")


def _obstacle(facts: Facts) -> str | None:
    """What keeps both kernels from running."""
    if facts.dtype not in HALVES:
        return f"{facts.dtype} is not computed on tensor cores without loss"
    if facts.capability is not None and facts.capability < FIRST_CAPABILITY:
        return f"compute capability {_dotted(facts.capability)} is below {_dotted(FIRST_CAPABILITY)}"
    if not NARROWEST <= facts.width <= WIDEST:
        return f"heads of {facts.width} values are outside our kernel's {NARROWEST} to {WIDEST}"
    if facts.span >= SPAN_LIMIT:
        return f"the longest segment spans {facts.span} values, our kernel counts below {SPAN_LIMIT}"
    return None


def _lacking_in_flash(facts: Facts) -> str | None:
    if facts.flash_attn is None:
        return "flash-attn is not installed"
    if facts.key_bias:
        return "flash-attn has no bias of keys"
    if facts.softcap and facts.flash_attn < FLASH_SOFTCAP:
        return f"flash-attn {_dotted(facts.flash_attn)} has no softcapping, {_dotted(FLASH_SOFTCAP)} has"
    if facts.width % FLASH_MULTIPLE:
        return f"flash-attn takes no heads of {facts.width} values, only multiples of {FLASH_MULTIPLE}"
    return None


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))


def facts_of(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, int], mask: Mask, key_bias: bool) -> Facts:
    """Of q (T, H, D), k and v (S, Hk, D) where they lie; `lengths`: rows of the longest segment of queries and keys."""
    spans = (lengths[0] * q.stride(0), *(lengths[1] * one.stride(0) for one in (k, v)))
    return Facts(
        width=q.shape[2],
        dtype=str(q.dtype).removeprefix("torch."),
        span=max(spans),
        softcap=mask.softcap is not None,
        key_bias=key_bias,
        capability=torch.cuda.get_device_capability(q.device) if q.is_cuda else None,
        triton=has_triton(),
        flash_attn=installed_flash(),
    )


@cache
def installed_flash() -> tuple[int, int] | None:
    """Major and minor version of flash-attn, None where it is not installed."""
    if find_spec("flash_attn") is None:
        return None
    try:
        numbers = version("flash_attn").split(".")
        return int(numbers[0]), int(numbers[1])
    except (PackageNotFoundError, ValueError, IndexError):
        return None
