import pytest

from sottovoce.cpu import Cpu
from sottovoce.errors import InputError
from sottovoce_compiler.native import native_target


def target_of(machine: str, *features: str) -> str:
    return native_target(Cpu(machine, frozenset(features))).name


def test_a_pc_with_avx2_is_linux_x86_64() -> None:
    assert target_of("x86", "sse2", "avx", "avx2", "fma", "avx512_vnni") == "linux-x86-64"


def test_arm_with_the_dot_product_is_a_pi_5_and_without_it_any_arm() -> None:
    assert target_of("arm", "asimd", "asimddp", "asimdhp", "fphp", "i8mm") == "raspberry-pi-5"
    assert target_of("arm", "asimd", "crc32") == "linux-arm64"


def test_arm_whose_features_are_unknown_is_the_target_that_needs_least() -> None:
    assert native_target(Cpu("arm", None)).name == "linux-arm64"


def test_a_pc_without_avx2_is_told_what_it_lacks() -> None:
    with pytest.raises(InputError, match="avx2, fma"):
        target_of("x86", "sse2", "avx")


def test_a_processor_of_another_kind_is_named_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"riscv64.*--target"):
        target_of("riscv64")
