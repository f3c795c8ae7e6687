"""rope: rotary position embedding of queries and keys together.

Su et al. 2021 (arXiv 2104.09864), section 3.4.2, in the pairing of Hugging Face's models: value i is turned with value
i + width/2 by the angle of its position, and values from `width` on stay as they are. The inverse of a rotation is its
transpose, so the backward turns the incoming gradients by the negative angles.
"""

from sottovoce_kernels.rope.op import rope

__all__ = ["rope"]
