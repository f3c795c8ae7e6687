"""Measures the source at full precision, once: what it says of a dataset is kept in the cache.

Knows which things change a transcript: the weights, the clips, transformers and torch, and the rules of
reference.py.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import AudioError
from sottovoce_compiler.report import reference
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import Evaluation, evaluate
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.sources.files import cache_root

CLIPS_AT_ONCE = 32  # recordings in memory


def evaluate_source(
    checkpoint: Checkpoint, dataset: Dataset, progress: Callable[[int], None] = lambda finished: None
) -> Evaluation:
    """The evaluation of the source in float32; from the cache where the same source was measured on the same
    data.
    """
    file = cache_root() / "reference" / f"{_key(checkpoint, dataset)}.json"
    said = _read(file)
    if said is None or set(said) != {clip.name for clip in dataset.clips}:
        said = _transcribe(checkpoint, dataset, progress)
        _write(file, said)
    known = said
    return evaluate(lambda clip: known[clip.name], dataset)


def load_samples(file: Path) -> NDArray[np.float32]:
    """Mono float32 samples at 16 kHz, shape (samples,), of any file that libsndfile reads. Raises
    `AudioError`.
    """
    import soundfile
    import soxr

    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"cannot read {file}: {error}") from None
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(f"{file} has samples that are not numbers")
    return np.asarray(
        mono if rate == reference.SAMPLE_RATE else soxr.resample(mono, rate, reference.SAMPLE_RATE),
        np.float32,
    )


def _transcribe(checkpoint: Checkpoint, dataset: Dataset, progress: Callable[[int], None]) -> dict[str, Hypothesis]:
    model = reference.SourceModel(checkpoint)
    said: dict[str, Hypothesis] = {}
    for start in range(0, len(dataset.clips), CLIPS_AT_ONCE):
        clips: Sequence[Clip] = dataset.clips[start : start + CLIPS_AT_ONCE]
        transcripts = model.transcribe(
            [load_samples(clip.file) for clip in clips],
            [clip.language if clip.is_speech else None for clip in clips],
            partial(_advance, progress, start),
        )
        for clip, heard in zip(clips, transcripts, strict=True):
            said[clip.name] = Hypothesis(heard.text, heard.language, heard.language_probability)
    return said


def _advance(progress: Callable[[int], None], before: int, finished: int) -> None:
    progress(before + finished)


def _key(checkpoint: Checkpoint, dataset: Dataset) -> str:
    facts = [
        dict(sorted(checkpoint.sha256.items())),
        dataset.sha256,
        reference.RULES,
        *(version(package) for package in ("transformers", "torch", "numpy", "soxr", "soundfile")),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read(file: Path) -> dict[str, Hypothesis] | None:
    try:
        content: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return {name: Hypothesis(**fields) for name, fields in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # missing, or not ours: measured again


def _write(file: Path, said: dict[str, Hypothesis]) -> None:
    content = {
        name: {"text": one.text, "language": one.language, "language_probability": one.language_probability}
        for name, one in said.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, work = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, ensure_ascii=False)
        os.replace(work, file)
    except BaseException:
        Path(work).unlink(missing_ok=True)
        raise
