"""swiglu: y = silu(gate) * up, silu(x) = x sigmoid(x).

Shazeer 2020 (arXiv 2002.05202), section 2, without its biases. With s = sigmoid(gate) and the incoming gradient g:

    dgate = g up s (1 + gate (1 - s)),   dup = g gate s
"""

from sottovoce_kernels.swiglu.op import swiglu

__all__ = ["swiglu"]
