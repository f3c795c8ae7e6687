"""Choosing and making golden cases: what the packed artifact itself says, kept for the device to compare with.

Knows the runtime's `golden` and the built-in set; never uses recordings of the user's, who may not want them shipped.
"""

import io
import wave
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from sottovoce.audio import SAMPLE_RATE, load_audio
from sottovoce.engines import Float
from sottovoce.errors import SottovoceError
from sottovoce.golden import FOLDER, Case, check_case, choose, score
from sottovoce.loading import Loaded
from sottovoce_compiler.pack import canonical_json
from sottovoce_compiler.report.dataset import Clip, Dataset

_SECONDS = 5.0  # long enough to use every part of the model, short enough for the slowest device
_DIGITS = 3  # of a log probability; finer differences are rounding anyway


def golden_files(bundle: Path, dataset: Dataset, threads: int = 2) -> Mapping[str, bytes]:
    """The golden cases of a packed bundle, by their names in it: one with speech, one without.

    Raises SottovoceError for a bundle that says nothing by which it could be known again.
    """
    loaded = Loaded.open(bundle, threads)
    try:
        files: dict[str, bytes] = {}
        for number, (clip, case) in enumerate((_speech(loaded, dataset), _silence(dataset))):
            case = replace(case, audio=f"{FOLDER}case-{number}.wav")
            files[case.audio] = _wav(load_audio(clip.file))
            files[f"{FOLDER}case-{number}.json"] = canonical_json(case.to_json())
        return files
    finally:
        loaded.engine.close()


def _wav(samples: Float) -> bytes:
    """A 16 kHz, 16-bit mono WAV file: what the model hears, a third of what some recordings are."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return content.getvalue()


def _speech(loaded: Loaded, dataset: Dataset) -> tuple[Clip, Case]:
    """The clip of nearly the wanted length in which words are found, and found again."""
    clips = [clip for clip in dataset.clips if clip.is_speech]
    for clip in sorted(clips, key=lambda clip: abs(clip.seconds - _SECONDS)):
        case = _make(loaded, clip)
        if case.tokens and not check_case(loaded, case, load_audio(_wav(load_audio(clip.file)))):
            return clip, case
    raise SottovoceError(f"{loaded.bundle.manifest.name} says nothing of {dataset.name} that a device could check")


def _silence(dataset: Dataset) -> tuple[Clip, Case]:
    """The shortest sound without speech."""
    clips = [clip for clip in dataset.clips if not clip.is_speech and clip.kind != "silence"]
    return min(clips, key=lambda clip: clip.seconds), Case("", "en", "", (), ())


def _make(loaded: Loaded, clip: Clip) -> Case:
    language = clip.language or "en"
    samples = load_audio(_wav(load_audio(clip.file)))
    tokens = choose(loaded, samples, language)
    logprobs, _ = score(loaded, samples, language, tokens)
    return Case(
        "", language, loaded.table.decode(tokens), tokens, tuple(round(float(value), _DIGITS) for value in logprobs)
    )
