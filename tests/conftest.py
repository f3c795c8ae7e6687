"""Bundles made once a session: a real Whisper and a random one. Both are read-only; copy what you want to damage."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from random_whisper import random_checkpoint

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.golden import golden_files
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target


def _draft(
    checkpoint: Checkpoint, precision: str, path: Path, machine: str = "linux-x86-64", form: str = "onnx"
) -> tuple[dict[str, object], dict[str, bytes | Path]]:
    """Manifest and files of a bundle as the compiler lowers it, without the slow measurement of its source."""
    target, spec = load_target(machine), whisper_spec(checkpoint)
    request = Request(checkpoint.spec, target, path, {}, precision, form)
    lowered = lower(request, checkpoint, spec, path.parent, lambda done: None)
    return manifest_fields(request, checkpoint, spec, lowered), dict(lowered.files)


@pytest.fixture(scope="session")
def tiny_bundle_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes whisper-tiny.en in int8 for a target, in a format ("onnx" if not given), golden cases included; each once.
    Needs the `weights` mark."""

    @cache
    def make(machine: str, form: str = "onnx") -> Path:
        folder = tmp_path_factory.mktemp(f"tiny-{machine}-{form}")
        fields, files = _draft(resolve("whisper-tiny.en"), "int8", folder / "tiny.svb", machine, form)
        draft = write_bundle(folder / "draft.svb", fields, files)
        bundle = write_bundle(folder / "tiny.svb", fields, {**files, **golden_files(draft, builtin_set())})
        draft.unlink()
        return bundle

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_for: Callable[..., Path]) -> Path:
    """whisper-tiny.en in int8 for linux-x86-64, golden cases included. Needs the `weights` mark."""
    return tiny_bundle_for("linux-x86-64")


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random multilingual Whisper in fp32, two layers of 64 values, without voice activity: needs no network."""
    folder = tmp_path_factory.mktemp("random")
    with patch("sottovoce_compiler.speech_pipeline.fetch_component", return_value=folder):
        fields, files = _draft(random_checkpoint(), "fp32", folder / "random.svb")
    del files["vad.onnx"]
    return write_bundle(folder / "random.svb", fields, files)
