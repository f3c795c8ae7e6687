"""Timestamp drift: how far the artifact's token times are from the source's, for the same text of the same audio.

Both are read from the cross-attention of the same heads by the same method; what differs is the artifact's precision
and its short context. Knows the runtime's engine on one side and transformers on the other.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.alignment import token_times
from sottovoce.golden import choose
from sottovoce.loading import Loaded
from sottovoce_compiler.families.whisper_heads import Heads
from sottovoce_compiler.report.attention import cross_attention, source_prompt
from sottovoce_compiler.report.dataset import Dataset
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import load_samples
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.sources.files import cache_root

_FRAME = 320  # samples
_CLIPS = 4  # the longest of one window: enough tokens for a mean, little enough time
_WINDOW_SECONDS = 29.0

Times = NDArray[np.float64]


def timestamp_drift(checkpoint: Checkpoint, heads: Heads, bundle: Path, dataset: Dataset) -> dict[str, Any]:
    """Mean and 90th percentile of the difference in milliseconds, and over how many tokens; empty without English
    speech."""
    spoken = [c for c in dataset.clips if c.is_speech and c.language == "en" and c.seconds <= _WINDOW_SECONDS]
    clips = [load_samples(clip.file) for clip in sorted(spoken, key=lambda clip: (-clip.seconds, clip.name))[:_CLIPS]]
    loaded = Loaded.open(bundle, 2)
    try:
        texts = [choose(loaded, samples, "en") for samples in clips]
        own = [_artifact_times(loaded, samples, text) for samples, text in zip(clips, texts, strict=True)]
    finally:
        loaded.engine.close()
    theirs = _source_times(checkpoint, heads, clips, texts)
    differences = [np.abs(a - b) for a, b in zip(own, theirs, strict=True)]
    if not differences:
        return {}
    every = 1e3 * np.concatenate(differences)
    return {
        "clips": len(clips),
        "tokens": int(every.size),
        "mean_ms": round(float(every.mean())),
        "p90_ms": round(float(np.percentile(every, 90))),
    }


def _artifact_times(loaded: Loaded, samples: NDArray[np.float32], text: Sequence[int]) -> Times:
    prompt = loaded.tokens.prompt("en", "transcribe", timestamps=False)
    batch = loaded.engine.start([samples], len(prompt) + len(text))
    batch.run(np.array([[*prompt, *text]], np.int64), [0])
    return token_times(batch.alignment()[0, :, len(prompt) - 1 :], -(-samples.size // _FRAME))


def _source_times(
    checkpoint: Checkpoint, heads: Heads, clips: Sequence[NDArray[np.float32]], texts: Sequence[Sequence[int]]
) -> list[Times]:
    """The source's times, kept in the cache: a second target of the same model says much the same."""
    facts = [dict(sorted(checkpoint.sha256.items())), list(heads), [list(text) for text in texts]]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for samples in clips:
        digest.update(samples.tobytes())
    kept = cache_root() / "reference" / f"times-{digest.hexdigest()}.json"
    try:
        return [np.array(times, np.float64) for times in json.loads(kept.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        pass  # missing, or not ours: measured again
    parts = SourceModel(checkpoint).load()
    prompt = source_prompt(parts)
    layers, places = zip(*heads, strict=True)
    found = []
    for samples, text in zip(clips, texts, strict=True):
        attention = cross_attention(parts, samples, [*prompt, *text])[list(layers), list(places)]
        found.append(token_times(attention[:, len(prompt) - 1 :], -(-samples.size // _FRAME)))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([times.tolist() for times in found]), encoding="utf-8")
    return found
