"""Choosing and making golden cases: what the packed artifact itself says, kept for the device to compare with.

Knows the runtime's `golden` and the built-in set; never uses recordings of the user's, who may not want them shipped.
"""

from collections.abc import Mapping
from pathlib import Path

from sottovoce.audio import load_audio
from sottovoce.golden import FOLDER, Case, score
from sottovoce.loading import Loaded
from sottovoce.pieces import Piece, PieceDecoder
from sottovoce.types import TranscribeOptions
from sottovoce_compiler.pack import canonical_json
from sottovoce_compiler.report.dataset import Clip, Dataset

_SECONDS = 5.0  # long enough to use every part of the model, short enough for the slowest device
_DIGITS = 3  # of a log probability; finer differences are rounding anyway


def golden_files(bundle: Path, dataset: Dataset, threads: int = 2) -> Mapping[str, bytes]:
    """The golden cases of a packed bundle, by their names in it: one with speech, one without."""
    loaded = Loaded.open(bundle, threads)
    try:
        files: dict[str, bytes] = {}
        for number, clip in enumerate((_nearest(dataset, speech=True), _nearest(dataset, speech=False))):
            audio = f"{FOLDER}case-{number}.wav"
            case = _make(loaded, clip, audio)
            files[audio] = clip.file.read_bytes()
            files[f"{FOLDER}case-{number}.json"] = canonical_json(case.to_json())
        return files
    finally:
        loaded.engine.close()


def _nearest(dataset: Dataset, speech: bool) -> Clip:
    """The clip whose length is nearest to the wanted one; the shortest sound without speech."""
    clips = [clip for clip in dataset.clips if clip.is_speech == speech and (speech or clip.kind != "silence")]
    return min(clips, key=lambda clip: abs(clip.seconds - (_SECONDS if speech else 0.0)))


def _make(loaded: Loaded, clip: Clip, audio: str) -> Case:
    language = clip.language or "en"
    if not clip.is_speech:
        return Case(audio, language, "", (), ())
    samples = load_audio(clip.file)
    options = TranscribeOptions(language=language, temperature=(0.0,), without_timestamps=True)
    decoder = PieceDecoder(loaded.engine, loaded.tokens, loaded.table, options)
    (segments,) = decoder.decode(decoder.begin([Piece(samples, 0)]), [language])
    tokens = tuple(token for segment in segments for token in segment.tokens)
    logprobs, _ = score(loaded, samples, language, tokens)
    text = "".join(segment.text for segment in segments)
    return Case(audio, language, text, tokens, tuple(round(float(value), _DIGITS) for value in logprobs))
