import subprocess
import sys
from pathlib import Path

import pytest

from sottovoce import cpu
from sottovoce.cpu import Cpu, this_cpu

PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU part\t: 0xd0b

processor\t: 1
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
"""
LAPTOP = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni\nbugs\t\t: none\n"
APPLE = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 0\nhw.optional.neon: 1\nodd line\n"


def given_cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, text: str | None) -> Cpu:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(cpu, "CPUINFO", path)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "linux")
    return this_cpu()


def test_a_pi_5_has_the_dot_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = given_cpuinfo(monkeypatch, tmp_path, "aarch64", PI_5)
    assert found.machine == "arm"
    assert found.missing(["asimd", "asimddp", "dotprod", "fphp", "i8mm"]) == ("i8mm",)


def test_an_x86_laptop_lists_its_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = given_cpuinfo(monkeypatch, tmp_path, "x86_64", LAPTOP)
    assert found.missing(["avx2", "avx512vnni", "avx_vnni"]) == ("avx_vnni",)


def test_only_what_every_core_has_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "Features : asimd asimddp\nFeatures : asimd\n"
    assert given_cpuinfo(monkeypatch, tmp_path, "aarch64", text).features == frozenset({"asimd"})


def test_a_listing_of_another_machine_is_unknown_and_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = given_cpuinfo(monkeypatch, tmp_path, "aarch64", LAPTOP)  # an emulator shows the host's
    assert found.features is None
    assert found.missing(["asimddp"]) == ()


def test_an_unreadable_listing_and_an_unknown_machine_are_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert given_cpuinfo(monkeypatch, tmp_path, "x86_64", None).features is None
    assert given_cpuinfo(monkeypatch, tmp_path, "riscv64", "isa : rv64imafdc\n").features is None


def test_a_mac_is_asked_through_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(cpu, "_sysctl", lambda: APPLE)
    assert this_cpu() == Cpu("arm", frozenset({"asimd", "asimddp"}))


def test_a_mac_whose_sysctl_fails_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise subprocess.TimeoutExpired("sysctl", 5)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(cpu, "_sysctl", fail)
    assert this_cpu().features is None


def test_features_of_another_kind_of_processor_are_foreign_and_not_missing() -> None:
    laptop = Cpu("x86", frozenset({"avx2"}))
    assert laptop.foreign(["asimddp", "neon", "avx2", "avx512f"]) == ("asimddp", "neon")
    assert laptop.missing(["asimddp", "avx512f"]) == ("avx512f",)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_this_machine_is_known() -> None:
    assert this_cpu().machine
