"""layer_norm: y = (x - mean) / sqrt(variance + eps) * weight + bias, with the residual sum before it if there is one.

Ba, Kiros and Hinton 2016 (arXiv 1607.06450), section 3. With n = (x - mean) r, r = 1 / sqrt(variance + eps) and the
incoming gradient g, per row:

    dx = r (g weight - mean(g weight) - n mean(g weight n))
    dweight = sum over rows of g n,   dbias = sum over rows of g
"""

from sottovoce_kernels.layer_norm.op import layer_norm

__all__ = ["layer_norm"]
