"""A tiny bundle for tests: every kind of content that a real one has, in a few kilobytes."""

from pathlib import Path
from typing import Any

from sottovoce_compiler.pack import canonical_json, write_bundle

REPORT: dict[str, Any] = {
    "quality": {
        "source": {"wer": 0.0512, "words": 1201, "strata": {"under 2 s": {"wer": 0.1}}},
        "artifact": {"wer": 0.0524, "words": 1201, "strata": {"under 2 s": {"wer": 0.1}}},
    },
    "gate": {"passed": True, "rows": [{"what": "wer", "limit": 0.5, "found": 0.12}]},
    "cost": {"bytes": 123456789, "machine": "two cores"},
    "golden": 2,
}
FILES: dict[str, bytes] = {
    "report.json": canonical_json(REPORT),
    "tokens.bin": bytes(range(256)),
    "golden/case-0.json": b"{}\n",
    "empty.bin": b"",
}


def manifest_fields(**changes: Any) -> dict[str, Any]:
    """Every key of a manifest but the two that `write_bundle` adds."""
    fields: dict[str, Any] = {
        "requires": {"runtime": "0.1.0"},
        "task": "transcribe",
        "family": "whisper",
        "name": "whisper-nano",
        "precision": "int8",
        "source": {
            "spec": "whisper-nano",
            "revision": None,
            "licence": "MIT",
            "sha256": {"model.bin": "0" * 64},
        },
        "target": {"name": "linux-x86-64", "memory_mb": 4096},
        "engine": {
            "name": "onnxruntime",
            "min_version": "1.21",
            "max_version": "2",
            "opset": 21,
            "cpu_features": [],
        },
        "audio": {"sample_rate": 16000},
        "model": {},
        "generation": {},
    }
    return fields | changes


def make_bundle(path: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """Writes the tiny bundle to `path`, with some manifest fields changed."""
    return write_bundle(path, manifest_fields(**changes), FILES if files is None else files)
