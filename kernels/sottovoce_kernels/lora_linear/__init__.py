"""Linear layers over frozen weights with low-rank adapters on top; several that share an input are one operation."""

from .op import lora_linear
from .projection import Projection

__all__ = ["Projection", "lora_linear"]
