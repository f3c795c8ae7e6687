import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import PRECISIONS, Recipe, block_size, recipe
from sottovoce_targets import PRECISIONS as TARGET_PRECISIONS
from sottovoce_targets import load_target


def for_target(name: str, precision: str = "int8", unit: int = 512) -> Recipe:
    target = load_target(name)
    return recipe(precision, target.arch, frozenset(target.instructions), unit)


def test_avx2_alone_gets_weights_that_cannot_saturate_and_block_kernels() -> None:
    found = for_target("linux-x86-64")
    assert found.encoder == DynamicInt8Linear(63)
    assert (found.decoder, found.head) == (BlockLinear(8, 64), BlockLinear(8, 128))
    assert found.half_tables


@pytest.mark.parametrize("vnni", ["avx512_vnni", "avx_vnni"])
def test_vnni_gets_all_127_levels(vnni: str) -> None:
    assert recipe("int8", "x86-64", frozenset({"avx2", vnni}), 512).encoder == DynamicInt8Linear(127)


@pytest.mark.parametrize("target", ["raspberry-pi-4", "android-arm64"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_arm_without_the_dot_product_gets_no_block_kernels(target: str, precision: str) -> None:
    found = for_target(target, precision)
    assert found.encoder == found.decoder == found.head == DynamicInt8Linear(127)


def test_arm_with_the_dot_product_gets_block_kernels_and_all_levels() -> None:
    found = for_target("raspberry-pi-5")
    assert (found.encoder, found.decoder) == (DynamicInt8Linear(127), BlockLinear(8, 64))
    assert for_target("raspberry-pi-5", "int4").head == BlockLinear(4, 32)


@pytest.mark.parametrize("target", ["linux-x86-64", "raspberry-pi-4"])
def test_float_precisions_are_the_same_everywhere(target: str) -> None:
    assert for_target(target, "fp32") == Recipe(FloatLinear(), FloatLinear(), FloatLinear(), half_tables=False)
    half = FloatLinear(half=True)
    assert for_target(target, "fp16") == Recipe(half, half, half, half_tables=True)


def test_parts_can_differ_and_the_float_tables_go_with_the_encoder() -> None:
    mixed = for_target("linux-x86-64", "encoder fp32, decoder int4, head int8")
    assert mixed == Recipe(FloatLinear(), BlockLinear(4, 32), BlockLinear(8, 128), half_tables=False)
    assert for_target("linux-x86-64", "encoder int8, decoder fp32, head fp16").half_tables


@pytest.mark.parametrize(
    ("unit", "most", "size"),
    [(384, 128, 128), (512, 128, 128), (320, 128, 64), (96, 128, 32), (48, 128, 16), (512, 32, 32), (48, 32, 16)],
)
def test_the_block_is_the_largest_that_divides_every_row(unit: int, most: int, size: int) -> None:
    assert block_size(unit, most) == size
    assert unit % size == 0


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rows_of_no_whole_block_are_refused_with_the_way_out(precision: str) -> None:
    with pytest.raises(InputError, match=r"rows of 40 values .* --precision fp16"):
        for_target("linux-x86-64", precision, unit=40)


def test_an_unknown_precision_is_refused_and_every_known_one_is_one_of_the_targets() -> None:
    with pytest.raises(ValueError, match="'int2' is not one of int8, int4, fp16, fp32"):
        for_target("linux-x86-64", "int2")
    assert set(PRECISIONS) == set(TARGET_PRECISIONS)
