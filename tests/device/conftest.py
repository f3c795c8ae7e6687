"""A device: a fresh environment that holds the built wheel of the runtime and what that asks for, and nothing else.

Built and installed once a session.
"""

import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from device_case import OLDEST, ROOT, Device, build_wheel, pip

MakeDevice = Callable[..., Device]


@pytest.fixture(scope="session")
def runtime_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of runtime/."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def make_device(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeDevice:
    """Makes an environment with the wheel; requirements given are exact versions in place of the pinned ones."""

    def make(*requirements: str, extra: str = "") -> Device:
        folder = tmp_path_factory.mktemp("device")
        environment = folder / "environment"
        venv.create(environment, with_pip=False, symlinks=True)
        pins = [] if requirements else ["--constraint", str(ROOT / "constraints.txt")]
        python = str(environment / "bin" / "python")
        pip("--python", python, "install", "--only-binary=:all:", *pins, f"{runtime_wheel}{extra}", *requirements)
        work = folder / "work"
        work.mkdir()
        return Device(environment, work)

    return make


@pytest.fixture(scope="session")
def device(make_device: MakeDevice) -> Device:
    """With the versions in constraints.txt."""
    return make_device()


@pytest.fixture(scope="session")
def oldest_device(make_device: MakeDevice) -> Device:
    """With the oldest versions that runtime/pyproject.toml allows."""
    return make_device(*OLDEST)


@pytest.fixture(scope="session")
def chat_device(make_device: MakeDevice) -> Device:
    """With what chatting needs where nobody wants to compile."""
    return make_device(extra="[chat-wheel]")
