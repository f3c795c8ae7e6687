"""Termux as far as Linux allows: an environment with what Termux packages and no more, which says it is Android."""

import os
import subprocess
import venv
from pathlib import Path

import pytest
from device_case import build_wheel, pip

SCRIPT = Path(__file__).parents[2] / "examples" / "android" / "termux" / "install.sh"
PACKAGED = ("numpy==2.4.6", "onnxruntime==1.23.2")  # the versions in Termux's recipes in November 2026


@pytest.fixture(scope="module")
def termux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which the example's script has been run."""
    folder = tmp_path_factory.mktemp("termux")
    wheel = build_wheel(folder / "wheel")
    venv.create(folder / "usr", with_pip=True, symlinks=True)
    programs = folder / "usr" / "bin"
    pip("--python", str(programs / "python"), "install", "--no-deps", "--only-binary=:all:", *PACKAGED)
    done = subprocess.run(["sh", SCRIPT, wheel], capture_output=True, text=True, env=environment(programs), check=False)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime 1.23.2" in done.stdout
    # From 3.13 on Python says so itself there.
    packages = next((folder / "usr" / "lib").glob("python3.*")) / "site-packages"
    (packages / "sitecustomize.py").write_text("import sys\nsys.platform = 'android'\n")
    return programs


def environment(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(programs.parent), "LANG": "C.UTF-8"}


def run(programs: Path, *arguments: str | Path) -> str:
    command = [programs / "sottovoce", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(programs), timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.weights
def test_with_numpy_and_onnxruntime_alone_a_bundle_verifies_and_transcribes(tiny_bundle: Path, termux: Path) -> None:
    from sottovoce_compiler.report.builtin import builtin_set

    installed = {path.name.partition("-")[0] for path in termux.parent.glob("lib/python3.*/site-packages/*.dist-info")}
    assert installed <= {"numpy", "onnxruntime", "sottovoce", "pip", "setuptools"}
    run(termux, "verify", tiny_bundle)
    clip = next(clip.file for clip in builtin_set().clips if clip.name.startswith("two-cities-24"))
    assert "heaven" in run(termux, "transcribe", tiny_bundle, clip, "--threads", "1")


def test_a_wheel_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        ["sh", SCRIPT, "nothing.whl"], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 2 and "nothing.whl: no such file" in done.stderr
