"""swiglu with a gradient."""

from typing import cast

import torch

from sottovoce_kernels.backend import Backend, choose
from sottovoce_kernels.gated import Implementation, gated
from sottovoce_kernels.swiglu import reference


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, backend: Backend | None = None) -> torch.Tensor:
    """silu(gate) * up, silu(x) = x sigmoid(x): the activation of Llama's feed-forward.

    gate, up and the result (..., N), in one dtype; rows may lie apart, as the halves of one projection do. For the
    backward the two inputs are kept and nothing else. Shazeer 2020 (arXiv 2002.05202), section 2.

    Raises ValueError for two shapes or dtypes, BackendError for a backend that cannot run here.
    """
    return gated(gate, up, _implementation(choose(backend, gate, up)))


def _implementation(backend: Backend) -> Implementation:
    if backend == "reference":
        return cast(Implementation, reference)
    from sottovoce_kernels.swiglu import kernel

    return cast(Implementation, kernel)
