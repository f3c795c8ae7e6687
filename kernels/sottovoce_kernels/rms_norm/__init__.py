"""rms_norm: y = x / sqrt(mean(x^2) + eps) * (weight + offset), with the residual sum before it if there is one.

Zhang and Sennrich 2019 (arXiv 1910.07467), section 3. With r = 1 / sqrt(mean(x^2) + eps), v = weight + offset and the
incoming gradient g, per row of W values:

    dx = r g v - x r^3 / W sum(g v x)
    dweight = sum over rows of g x r
"""

from sottovoce_kernels.rms_norm.op import rms_norm

__all__ = ["rms_norm"]
