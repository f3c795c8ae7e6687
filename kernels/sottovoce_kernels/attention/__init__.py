"""Attention over packed sequences: each query sees keys of its own segment and of no other."""

from .op import attention

__all__ = ["attention"]
