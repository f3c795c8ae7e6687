"""What is decided from a precision's name, the CPU and the model's shape."""

from dataclasses import replace

import numpy as np
import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.families.causal import CausalSpec, Rope
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear
from sottovoce_compiler.lowerings.onnx.searched import SearchedLinear

SPEC = CausalSpec("llama", 24, 576, 1536, 9, 3, 64, 49152, 8192, 1e-5, Rope(64, 1e5), True)
VNNI = frozenset({"avx512_vnni"})


def test_floats_are_kept_or_halved_throughout() -> None:
    for precision, half in (("fp32", False), ("fp16", True)):
        made = causal_recipe(precision, "x86-64", VNNI, SPEC)
        assert made.head == made.linear("q", 0) == made.linear("down", 23) == FloatLinear(half)


def test_8_bits_have_blocks_throughout() -> None:
    made = causal_recipe("int8", "x86-64", VNNI, SPEC)
    assert made.head == made.linear("q", 0) == made.linear("down", 5) == BlockLinear(8, 32, fitted=True)
    assert made.together(0)


def test_4_bits_keep_the_head_v_and_some_of_down_finer() -> None:
    made = causal_recipe("int4", "aarch64", frozenset({"asimddp"}), SPEC)
    finer = [layer for layer in range(24) if made.linear("down", layer) == BlockLinear(8, 32, fitted=True)]
    assert finer == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert made.head == BlockLinear(8, 64, fitted=True)
    assert isinstance(made.linear("v", 4), BlockLinear) and not made.together(4)
    for role in ("q", "o", "gate"):
        assert all(isinstance(made.linear(role, layer), SearchedLinear) for layer in range(24))


def test_importance_reaches_the_matrix_it_is_of() -> None:
    columns = np.arange(576, dtype=np.float32)
    made = causal_recipe("int4", "x86-64", VNNI, SPEC, lambda role, layer: columns + layer if role == "o" else None)
    weighted, plain = made.linear("o", 3), made.linear("gate", 3)
    assert isinstance(weighted, SearchedLinear) and isinstance(plain, SearchedLinear)
    assert weighted.importance is not None and weighted.importance[0] == 3 and plain.importance is None


def test_a_cpu_without_the_dot_product_has_whole_rows() -> None:
    made = causal_recipe("int4", "aarch64", frozenset(), SPEC)
    assert isinstance(made.head, DynamicInt8Linear) and made.linear("q", 0) == made.head


def test_rows_that_no_block_divides_are_refused_and_unknown_precisions_too() -> None:
    with pytest.raises(InputError, match="fp16"):
        causal_recipe("int8", "x86-64", VNNI, replace(SPEC, ffn=1500))
    assert isinstance(causal_recipe("fp16", "x86-64", VNNI, replace(SPEC, ffn=1500)).head, FloatLinear)
    with pytest.raises(ValueError, match="int5"):
        causal_recipe("int5", "x86-64", VNNI, SPEC)
