"""What a precision means in GGUF: one of ours, or a mix of llama.cpp's by its name in small letters."""

from sottovoce.errors import InputError

# Ours -> llama.cpp's mix. Q4_K_M is what its own users take for 4 bits; Q8_0 is as good as the source.
_OURS = {"fp32": "F32", "fp16": "F16", "int8": "Q8_0", "int4": "Q4_K_M"}
ADAPTER_PRECISIONS = ("fp32", "fp16")  # of a LoRA adapter in a file of its own
GGUF_PRECISIONS = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_nl")


def mix_of(precision: str) -> str:
    """The mix of `recipe.MIXES` for a precision. Raises InputError naming those there are."""
    if precision in _OURS:
        return _OURS[precision]
    if precision in GGUF_PRECISIONS:
        return precision.upper()
    raise InputError(f"precision {precision!r} is not one of {', '.join((*_OURS, *GGUF_PRECISIONS))}")
