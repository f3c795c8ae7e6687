"""Rotary positions as configs give them: `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).

Reads the default kind, "linear", "llama3" and "longrope"; "yarn" and the others are refused by name.
"""

import math
from collections.abc import Mapping

from sottovoce_compiler.families.causal import Rope
from sottovoce_compiler.families.config import Reader

_BESIDE = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
_KINDS = "default, linear, llama3 and longrope are supported"


def rope_parameters(read: Reader, theta: float | None = None) -> Reader:
    """The parameters in the style of transformers 5, whichever the config has; `theta` is the family's default base.

    Keys that transformers 4 keeps beside `rope_scaling` are filled in; two that contradict each other are refused.
    """
    new, old = read.config.get("rope_parameters"), read.config.get("rope_scaling")
    for key, value in (("rope_parameters", new), ("rope_scaling", old)):
        if value is not None and not isinstance(value, Mapping):
            raise read.refuse(key, "an object or null is needed")
    if new and old and dict(new) != dict(old):
        raise read.refuse("rope_scaling", f"rope_parameters says {dict(new)!r:.200}")
    found = dict(new or old or {})
    for key in _BESIDE:
        beside = read.config.get(key)
        if beside is not None and found.setdefault(key, beside) != beside:
            raise read.refuse(key, f"rope_parameters says {found[key]!r}")
    if found.get("rope_theta") is None and theta is not None:
        found["rope_theta"] = theta
    return read.part("rope_parameters" if new else "rope_scaling", found)


def read_rope(read: Reader, head_width: int, context: int) -> Rope:
    """The `Rope` of parameters in the style of transformers 5, for heads of `head_width` values."""
    kind = read.config.get("rope_type", read.config.get("type", "default"))
    share = read.number("partial_rotary_factor", 1.0)
    width = int(head_width * share)
    if share > 1 or width % 2 or not width:
        raise read.refuse("partial_rotary_factor", f"an even part of {head_width} values is needed")
    base = read.number("rope_theta")
    if kind == "default":
        return Rope(width, base)
    if kind == "linear":
        return Rope(width, base, linear_factor=read.number("factor"))
    if kind == "llama3":
        return Rope(width, base, factors=_llama3(read, width, base))
    if kind in ("longrope", "su"):  # "su" is what Phi-3 was first published with
        return _longrope(read, width, base, context)
    raise read.refuse("rope_type" if "rope_type" in read.config else "type", _KINDS)


def _llama3(read: Reader, width: int, base: float) -> tuple[float, ...]:
    """Llama 3.1's factors: short wavelengths stay, long ones are stretched by `factor`, those between blend over."""
    factor = read.number("factor")
    low, high = read.number("low_freq_factor"), read.number("high_freq_factor")
    original = read.positive("original_max_position_embeddings")
    if high <= low:
        raise read.refuse("high_freq_factor", f"more than low_freq_factor = {low} is needed")

    def of(wavelength: float) -> float:
        if wavelength < original / high:
            return 1.0
        if wavelength > original / low:
            return factor
        blend = (original / wavelength - low) / (high - low)
        return 1 / ((1 - blend) / factor + blend)

    return tuple(of(2 * math.pi * base ** (2 * i / width)) for i in range(width // 2))


def _longrope(read: Reader, width: int, base: float, context: int) -> Rope:
    """LongRoPE (arXiv 2402.13753): one set of factors up to the original context, another beyond it."""
    original = read.positive("original_max_position_embeddings")
    factor = read.number("factor", context / original)
    scale = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(
        width,
        base,
        factors=read.numbers("long_factor", width // 2),
        short_factors=read.numbers("short_factor", width // 2),
        original_context=original,
        attention_factor=read.number("attention_factor", scale),
    )
