"""geglu: y = gelu(gate) * up, with the tanh approximation of gelu, as Gemma has it.

Shazeer 2020 (arXiv 2002.05202), section 2; Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2. In the kernel
gelu(x) = x sigmoid(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3), which is the same as x (1 + tanh(z)) / 2. With
s = sigmoid(2 z) and the incoming gradient g:

    dgate = g up (s + x s (1 - s) 2 dz/dx)
    dup = g gelu(gate)
"""

from sottovoce_kernels.geglu.op import geglu

__all__ = ["geglu"]
