"""gelu_bias: y = gelu(x + bias), the exact gelu, as Whisper has it.

Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2. With z = x + bias, P the normal distribution's cumulative
function and p its density, and the incoming gradient g:

    y = z P(z),   dx = g (P(z) + z p(z)),   dbias = sum over rows of dx
"""

from sottovoce_kernels.gelu_bias.op import gelu_bias

__all__ = ["gelu_bias"]
