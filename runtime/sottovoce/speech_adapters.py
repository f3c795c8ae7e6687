"""LoRA adapters for speech at run time: each belongs to one base, and must be seen to do something.

Knows the pin and a probe; what an adapter holds is read by `engines.speech_adapter`.
"""

from pathlib import Path

import numpy as np

from sottovoce.adapter_pin import open_pinned, weights_of
from sottovoce.engines import Float
from sottovoce.errors import EngineError, InputError
from sottovoce.loading import Loaded
from sottovoce.vad import SAMPLE_RATE


def attach(ready: Loaded, path: Path, scale: float) -> None:
    """Attach the adapter at `path` beside those that are attached.

    Raises BundleError for a damaged file, InputError for an adapter of another base, one that does not say of which, or
    one that changes nothing; only those from before are attached then.
    """
    if not np.isfinite(scale) or scale == 0:
        raise InputError(f"scale = {scale}; a number other than 0 is needed")
    manifest, before = ready.bundle.manifest, ready.engine.adapters
    file = open_pinned(path, weights_of(manifest), manifest.name)
    plain = _probe(ready)
    try:
        ready.engine.attach(file, scale)
        after = _probe(ready)
        if not np.isfinite(after).all():
            raise EngineError(f"{path}: with this adapter the model computes no numbers; train it again")
        if np.array_equal(plain, after):
            raise InputError(f"{path}: this adapter changes nothing; it was not trained, or its scale is too small")
    except BaseException:
        ready.engine.detach(before)
        raise


def _probe(ready: Loaded) -> Float:
    """Logits (vocabulary,) of the first word in a second of a rising tone."""
    seconds = np.arange(SAMPLE_RATE, dtype=np.float32) / np.float32(SAMPLE_RATE)
    tone = (np.sin(2 * np.pi * (200 + 300 * seconds) * seconds) / 4).astype(np.float32)
    prompt = np.array([ready.tokens.prompt(None, "transcribe", timestamps=True)], np.int64)
    batch = ready.engine.start([tone], prompt.shape[1])
    return np.array(batch.run(prompt, [prompt.shape[1] - 1])[0, 0])
