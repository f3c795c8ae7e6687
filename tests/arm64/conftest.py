"""An arm64 Debian with the built wheel of the runtime, once a session; skipped, with the reason, where there cannot be
one. SOTTOVOCE_ARM64=required, which `make test-arm64` sets, makes that a failure."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from device_case import ROOT, build_wheel, pip
from tests.arm64.arm64_root import GLIBC, PYTHON, CannotEmulate, make_root
from tests.arm64.boards import Board

from sottovoce_compiler.sources.files import cache_root

if str(ROOT / "benchmarks") not in sys.path:
    sys.path.append(str(ROOT / "benchmarks"))

from tests.arm64.emulated import Emulated


@pytest.fixture(scope="session")
def arm64_root() -> Path:
    try:
        return make_root(cache_root() / "arm64")
    except CannotEmulate as reason:
        if os.environ.get("SOTTOVOCE_ARM64") == "required":
            raise
        pytest.skip(f"arm64 is not emulated here: {reason}")


@pytest.fixture(scope="session")
def arm64_site(arm64_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel and what it asks for, with every engine, as aarch64 wheels at the pinned versions."""
    folder = tmp_path_factory.mktemp("arm64")
    wheel, site = build_wheel(folder), folder / "site"
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC + 1)]
    pip(
        *("install", "--target", str(site), "--only-binary=:all:", "--platform=manylinux2014_aarch64", *tags),
        *("--python-version", PYTHON, "--implementation", "cp", "--constraint", str(ROOT / "constraints.txt")),
        f"{wheel}[chat-wheel,chat-onnx,litert]",
    )
    return site


@pytest.fixture(scope="session")
def emulate(
    arm64_root: Path, arm64_site: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Board], Emulated]:
    """Makes a board that runs."""

    def make(board: Board) -> Emulated:
        return Emulated.make(board, arm64_root, arm64_site, tmp_path_factory.mktemp(board.target) / "board")

    return make
