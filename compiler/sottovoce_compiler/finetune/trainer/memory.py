"""The most memory that training has taken: the GPU's where it is on one, else the process's. Bytes."""

import sys

import torch


def peak_bytes(device: torch.device) -> int | None:
    """Since the process began; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
