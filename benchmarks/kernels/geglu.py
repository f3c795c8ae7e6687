"""geglu beside the activation and the product by themselves.

python benchmarks/kernels/geglu.py [--device cpu]
"""

import sys
from functools import partial

import torch
from gated import cases
from harness import main
from torch.nn import functional

from sottovoce_kernels.geglu import geglu


def composed(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As models have it."""
    return functional.gelu(gate, approximate="tanh") * up


if __name__ == "__main__":
    sys.exit(main("geglu", partial(cases, geglu, composed)))
