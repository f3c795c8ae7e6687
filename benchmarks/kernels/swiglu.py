"""swiglu beside the activation and the product by themselves.

python benchmarks/kernels/swiglu.py [--device cpu]
"""

import sys
from functools import partial

import torch
from gated import cases
from harness import main
from torch.nn import functional

from sottovoce_kernels.swiglu import swiglu


def composed(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As models have it."""
    return functional.silu(gate) * up


if __name__ == "__main__":
    sys.exit(main("swiglu", partial(cases, swiglu, composed)))
