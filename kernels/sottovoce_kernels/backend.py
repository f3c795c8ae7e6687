"""Which implementation of an operation runs: Triton's kernels on a GPU, plain torch elsewhere.

Knows devices and what is installed. Knows no operation.
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch

Backend = Literal["reference", "triton"]


class BackendError(RuntimeError):
    """The backend that was asked for cannot run on these tensors."""


def choose(backend: Backend | None, *tensors: torch.Tensor | None) -> Backend:
    """`backend` where it is given, else "triton" where every tensor is on a CUDA device and Triton is installed.

    Raises BackendError where "triton" was asked for and cannot run: tensors on the CPU without Triton's interpreter
    (TRITON_INTERPRET=1), or no Triton.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    on_gpu = bool(given) and all(tensor.is_cuda for tensor in given)
    if backend is None:
        return "triton" if on_gpu and has_triton() else "reference"
    if backend == "triton":
        if not has_triton():
            raise BackendError(
                "backend 'triton' needs Triton: pip install 'sottovoce-compiler[gpu]', or use 'reference'"
            )
        if not on_gpu and not interpreted():
            where = sorted({str(tensor.device) for tensor in given})
            raise BackendError(
                f"backend 'triton' needs tensors on a GPU, these are on {', '.join(where)}; use 'reference'"
            )
    return backend


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, on CPU tensors: for tests, thousands of times slower."""
    return os.environ.get("TRITON_INTERPRET") == "1"
