"""Frozen weights in 8 or 4 bits: int8, fp8 (e4m3), nf4 and GGUF's q4_0, made once and decoded where they are used.

`formats.py` has the arithmetic of each kind in plain torch, `kernel.py` the same decoding for Triton, `weight.py` the
weight as the rest sees it. Nothing here multiplies; `lora_linear` does.
"""

from .formats import FORMATS, Kind
from .weight import QuantizedWeight, quantize

__all__ = ["FORMATS", "Kind", "QuantizedWeight", "quantize"]
