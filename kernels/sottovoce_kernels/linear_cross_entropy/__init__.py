"""A language model's head and its loss in one operation, in chunks of rows, so that logits never exist whole."""

from .op import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
