"""Operations of fine-tuning, each with a Triton kernel for GPUs and a reference in plain torch that is the CPU's path.

One folder an operation: `reference.py` and `kernel.py` have the same `forward` and `backward`, `op.py` is the
differentiable function over both. Nothing here knows models, adapters on disk or training.
"""
