"""Voice activity: where somebody speaks, from a small recurrent network that the bundle carries.

The network is Silero VAD (MIT) in its sequence form: many frames of 32 ms a call, state in and out. This module knows
its inputs and how to turn probabilities into stretches of speech; it knows nothing of decoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sottovoce.errors import EngineError

SAMPLE_RATE = 16_000  # Hz
FRAME = 512  # samples in a frame, 32 ms
_CONTEXT = 64  # samples of the frame before, which the network sees too
_FRAMES_A_CALL = 512  # bounds memory; 16 s
_STATE = (1, 1, 128)

Float = NDArray[np.float32]
State = tuple[Float, Float]


@dataclass(frozen=True, slots=True)
class VadOptions:
    """How probabilities become speech; times in seconds. Speech starts at `threshold` and ends below `threshold -
    drop`."""

    threshold: float = 0.4
    drop: float = 0.15
    min_speech: float = 0.1
    min_silence: float = 0.3
    pad: float = 0.2


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of samples."""

    start: int
    end: int


class VoiceActivity:
    """Speech probabilities of audio; the session is made from the serialized network.

    Raises EngineError when onnxruntime refuses it.
    """

    def __init__(self, model: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A minute of audio takes one thread 76 ms; memory is worth more than the arena's speed here.
        options.enable_cpu_mem_arena = False
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own types, which differ between versions
            reason = str(error).splitlines()[0]
            raise EngineError(f"onnxruntime cannot open the voice activity network: {reason}") from error

    def probabilities(self, samples: Float) -> Float:
        """(samples,) float32 at 16 kHz -> (frames,) probability of speech in every 32 ms, the last one padded."""
        heard = VoiceStream(self)
        missing = -samples.size % FRAME
        parts = [heard.push(samples), heard.push(np.zeros(missing, np.float32))]
        return np.concatenate(parts)

    def run(self, frames: Float, context: Float, state: State) -> tuple[Float, State]:
        """Frames (n, 512) float32 after the 64 samples `context` -> (n,) probabilities, and the state after them."""
        before = np.concatenate([context[None], frames[:-1, -_CONTEXT:]])
        feed = {"input": np.concatenate([before, frames], axis=1), "h": state[0], "c": state[1]}
        probs, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], feed)
        return probs.reshape(-1), (hidden, cell)


class VoiceStream:
    """The same for audio that arrives in pieces of any size: what it returns, joined, is what one call would."""

    def __init__(self, activity: VoiceActivity) -> None:
        self._activity = activity
        self._state: State = (np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32))
        self._context = np.zeros(_CONTEXT, np.float32)
        self._waiting = np.zeros(0, np.float32)  # less than a frame

    def push(self, samples: Float) -> Float:
        """(samples,) float32 at 16 kHz -> (frames,) probability of speech in every frame that is now complete."""
        parts = [np.zeros(0, np.float32)]
        taken = FRAME - self._waiting.size if self._waiting.size else 0
        if taken:
            self._waiting = np.concatenate([self._waiting, samples[:taken]])
            if self._waiting.size < FRAME:
                return parts[0]
            parts.append(self._run(self._waiting))
        whole = (samples.size - taken) // FRAME * FRAME
        for start in range(taken, taken + whole, FRAME * _FRAMES_A_CALL):
            parts.append(self._run(samples[start : min(start + FRAME * _FRAMES_A_CALL, taken + whole)]))
        self._waiting = samples[taken + whole :].copy()
        return np.concatenate(parts)

    def _run(self, samples: Float) -> Float:
        frames = samples.reshape(-1, FRAME)
        probabilities, self._state = self._activity.run(frames, self._context, self._state)
        self._context = frames[-1, -_CONTEXT:].copy()
        return probabilities


def speech_spans(probabilities: Float, total: int, options: VadOptions) -> list[Span]:
    """Stretches of speech in `total` samples, padded, in order and apart from each other."""
    frames = [
        (start, end)
        for start, end in _runs(probabilities, options)
        if (end - start) * FRAME >= options.min_speech * SAMPLE_RATE
    ]
    pad = round(options.pad * SAMPLE_RATE)
    spans = [Span(max(0, a * FRAME - pad), min(total, b * FRAME + pad)) for a, b in frames]
    return _joined(spans)


def _runs(probabilities: Float, options: VadOptions) -> list[tuple[int, int]]:
    """Runs of frames: begun at the threshold, ended by `min_silence` below the lower one."""
    patience = max(1, round(options.min_silence * SAMPLE_RATE / FRAME))
    runs: list[tuple[int, int]] = []
    start: int | None = None
    quiet = 0
    for i, probability in enumerate(probabilities):
        if start is None:
            if probability >= options.threshold:
                start, quiet = i, 0
            continue
        quiet = quiet + 1 if probability < options.threshold - options.drop else 0
        if quiet >= patience:
            runs.append((start, i + 1 - quiet))
            start = None
    if start is not None:
        runs.append((start, len(probabilities) - quiet))
    return runs


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that overlap after padding meet in the middle of their overlap."""
    out = list(spans)
    for i, (a, b) in enumerate(pairwise(spans)):
        if a.end > b.start:
            middle = (a.end + b.start) // 2
            out[i] = Span(out[i].start, middle)
            out[i + 1] = Span(middle, b.end)
    return out
