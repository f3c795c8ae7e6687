"""What each kind of quantized weight is made of, encoded and decoded in plain torch.

Knows numbers and their layout in memory. Knows no device but where its tensors are, and no file format except that
the bits of q4_0 are GGUF's.

Every decoder gives float32: a caller rounds once, to the dtype that it computes in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["int8", "fp8", "nf4", "q4_0"]

INT8_LARGEST = 127.0
FP8_LARGEST = 448.0  # of e4m3 without infinities (Micikevicius et al. 2022, arXiv 2209.05433, table 1)
NF4_BLOCK = 64  # values that share a scale (Dettmers et al. 2023, arXiv 2305.14314, section 3)
Q4_0_BLOCK = 32
OUTER_BLOCK = 256  # scales that share a scale, where scales are quantized too (ibid., "Double Quantization")


@dataclass(frozen=True, slots=True)
class Format:
    """`block`: columns that share a scale, None where a whole row does; `packed`: values in one element of the data;
    `pads`: whether rows are filled up with zeros to whole blocks, otherwise they have to be whole.

    `encode`: (N, K) float32 to data (N, K / packed) and scales, (N,) float32 or (N, K / block).
    `decode`: data and float32 scales of some rows to those rows, (n, K) float32."""

    block: int | None
    packed: int
    pads: bool
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Tensor], Tensor]

    def columns(self, given: int) -> int:
        """Columns that are stored for rows of `given` values. Raises ValueError where a block would be cut."""
        if self.block is None or given % self.block == 0:
            return given
        if not self.pads:
            raise ValueError(f"rows of {given} values do not divide into blocks of {self.block}; take int8 or nf4")
        return given + -given % self.block


def encode_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """To the nearest of 255 even steps between a row's largest magnitude and its negative."""
    scales = weight.abs().amax(1) / INT8_LARGEST
    return (weight / _divisors(scales)).round().to(torch.int8), scales


def decode_int8(data: Tensor, scales: Tensor) -> Tensor:
    """Steps times their width."""
    return data.to(torch.float32).mul_(scales[:, None])


def encode_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """To e4m3, a row's largest magnitude at the largest number that it has."""
    scales = weight.abs().amax(1) / FP8_LARGEST
    scaled = (weight / _divisors(scales)).clamp_(-FP8_LARGEST, FP8_LARGEST)
    return scaled.to(torch.float8_e4m3fn), scales


def decode_fp8(data: Tensor, scales: Tensor) -> Tensor:
    """The same numbers; e4m3's bits are those of a float16 that is 2^8 smaller, which is faster than a conversion."""
    bits = data.view(torch.int8).to(torch.int16).mul_(128).bitwise_and_(~0x4000)  # sign, four of exponent, three
    return bits.view(torch.float16).to(torch.float32).mul_(scales[:, None] * 256.0)


@cache
def nf4_codes() -> tuple[float, ...]:
    """The 16 values of 4-bit NormalFloat, ascending from -1 to 1 with an exact zero.

    Quantiles of the normal distribution at evenly spaced probabilities, eight for the positive side and seven for the
    negative, each side from the outermost probability inwards to one half, which is the zero that both share; divided
    by the largest (arXiv 2305.14314, section 3 and appendix E). The outermost probability is halfway between those of
    half-steps on sides of 15 and of 16 values.
    """
    outermost = 1.0 - (1 / 30 + 1 / 32) / 2
    positive, negative = (
        torch.special.ndtri(torch.linspace(outermost, 0.5, count + 1, dtype=torch.float64)[:-1]) for count in (8, 7)
    )
    codes = torch.cat([-negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)]) / positive.max()
    return tuple(codes.tolist())


def encode_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """To the nearest code of a block's values over their largest magnitude; the first of two in the high bits."""
    blocks = weight.view(len(weight), -1, NF4_BLOCK)
    scales = blocks.abs().amax(2)
    codes = torch.tensor(nf4_codes(), dtype=torch.float32, device=weight.device)
    borders = (codes[1:] + codes[:-1]) / 2
    nearest = torch.bucketize(blocks / _divisors(scales)[:, :, None], borders).to(torch.uint8).view(len(weight), -1, 2)
    return (nearest[:, :, 0] << 4) | nearest[:, :, 1], scales


def decode_nf4(data: Tensor, scales: Tensor) -> Tensor:
    """Codes times scales; a byte is looked up whole."""
    values = _nf4_pairs(data.device).index_select(0, data.reshape(-1).to(torch.int32)).view(torch.float32)
    blocks = values.view(len(data), -1, NF4_BLOCK)
    return blocks.mul_(scales[:, :, None]).view(len(data), -1)


@cache
def _nf4_pairs(device: torch.device) -> Tensor:
    """(256,) float64, each the bits of the two float32 values that a byte stands for."""
    codes = torch.tensor(nf4_codes(), dtype=torch.float32)
    pairs = torch.stack([codes.repeat_interleave(16), codes.repeat(16)], 1)
    return pairs.view(torch.float64).view(-1).to(device)


def encode_q4_0(weight: Tensor) -> tuple[Tensor, Tensor]:
    """As GGUF's reference does: the value of largest magnitude, the first of equals, becomes -8 steps; value i of a
    block goes to the low bits of byte i, value 16 + i to the high ones."""
    blocks = weight.view(len(weight), -1, Q4_0_BLOCK)
    extreme = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    steps = extreme / -8
    inverse = torch.where(steps == 0, 0.0, 1.0 / steps)
    nearest = (blocks * inverse + 8.5).to(torch.uint8).clamp_(max=15)
    low, high = nearest[:, :, : Q4_0_BLOCK // 2], nearest[:, :, Q4_0_BLOCK // 2 :]
    return (low | (high << 4)).view(len(weight), -1), steps.squeeze(2).to(torch.float16)


def decode_q4_0(data: Tensor, scales: Tensor) -> Tensor:
    """Steps from -8 to 7 times their width."""
    halves = data.view(len(data), -1, Q4_0_BLOCK // 2)
    steps = torch.stack((halves & 15, halves >> 4), 2).view(torch.int8).sub_(8)
    return steps.to(torch.float32).mul_(scales[:, :, None, None]).view(len(data), -1)


def _divisors(scales: Tensor) -> Tensor:
    """Scales with ones in place of zeros, along rows where there is one a row: zeros stay zeros when divided."""
    divisors = torch.where(scales == 0, 1.0, scales)
    return divisors[:, None] if scales.dim() == 1 else divisors


def encode_scales(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Scales in 8 bits: blocks of `OUTER_BLOCK` lose their mean and become int8 steps (arXiv 2305.14314, section 3,
    where the 8 bits are a float; even steps err less on what is left).

    `scales` (N, blocks) float32 gives int8 of the same shape, and (2, groups) float32: width of a step, mean.
    """
    flat = scales.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % OUTER_BLOCK), value=float("nan")).view(-1, OUTER_BLOCK)
    means = padded.nanmean(1)
    rest = (padded - means[:, None]).nan_to_num_(0.0)
    widths = rest.abs().amax(1) / INT8_LARGEST
    steps = (rest / _divisors(widths)).round().to(torch.int8)
    return steps.view(-1)[: len(flat)].view(scales.shape), torch.stack([widths, means])


def decode_scales(steps: Tensor, outer: Tensor) -> Tensor:
    """The inverse of `encode_scales`, float32."""
    flat = steps.flatten().to(torch.float32)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % OUTER_BLOCK)).view(-1, OUTER_BLOCK)
    padded = padded.mul_(outer[0][:, None]).add_(outer[1][:, None])
    return padded.view(-1)[: len(flat)].view(steps.shape)


FORMATS: Mapping[Kind, Format] = {
    "int8": Format(None, 1, True, encode_int8, decode_int8),
    "fp8": Format(None, 1, True, encode_fp8, decode_fp8),
    "nf4": Format(NF4_BLOCK, 2, True, encode_nf4, decode_nf4),
    "q4_0": Format(Q4_0_BLOCK, 2, False, encode_q4_0, decode_q4_0),
}
