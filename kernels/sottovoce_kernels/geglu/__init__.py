"""geglu: y = gelu(gate) * up, with the tanh approximation of gelu, as Gemma has it.

Shazeer 2020 (arXiv 2002.05202), section 2, without its biases; Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.
With u = 2 sqrt(2 / pi) (gate + 0.044715 gate^3), s = sigmoid(u), gelu(gate) = gate s and the incoming gradient g:

    dgate = g up (s + gate s (1 - s) u'),   dup = g gelu(gate)
"""

from sottovoce_kernels.geglu.op import geglu

__all__ = ["geglu"]
