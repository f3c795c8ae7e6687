"""What a device is to its tests: an environment of its own, and commands that run there, away from this checkout."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST_VARIABLES = ("PYTHON", "SOTTOVOCE", "XDG", "ORT", "CI")  # what a device does not have; CI alone silences telemetry
OLDEST = ("onnxruntime==1.22.0", "numpy==1.26.4")  # what runtime/pyproject.toml says at least


@dataclass(frozen=True)
class Device:
    """An environment, and an empty folder to work in."""

    environment: Path
    folder: Path

    def run(
        self, *command: str | Path, home: Path | None = None, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """`sottovoce` or `python` of that environment, with these arguments; nothing set that is not on a device."""
        name, *arguments = map(str, command)
        variables = {key: value for key, value in os.environ.items() if not key.startswith(HOST_VARIABLES)}
        if home is not None:
            variables["HOME"] = str(home)
        return subprocess.run(
            [self.environment / "bin" / name, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )

    def python(self, code: str) -> str:
        """What a program prints; it must end well."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel of runtime/, built in `folder` from a copy, so that nothing is written into the checkout."""
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "runtime", folder / "runtime", ignore=ignored)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "runtime"))
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(*arguments: str) -> None:
    """This environment's pip, which can install into another."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
