"""When somebody begins to speak, pauses and stops, from one probability of speech every 32 ms.

Knows frames and thresholds; knows nothing of audio or decoding.
"""

from enum import Enum

from sottovoce.vad import FRAME, SAMPLE_RATE

_DROP = 0.15  # below the threshold, from which a frame counts as silence
_MIN_SPEECH = 0.1  # seconds; shorter sounds are clicks
_WITHIN = 0.2  # seconds in which that much must be loud: the audio from before is not kept for longer
FRAME_SECONDS = FRAME / SAMPLE_RATE


class Turn(Enum):
    """What a frame changed."""

    STARTED = "started"
    ENDED = "ended"


class Endpoint:
    """Takes one frame's probability after the other.

    `began` is the frame in which the current speech began, `quiet` how many frames of silence have followed it.
    """

    def __init__(self, threshold: float, end_of_speech: float) -> None:
        self._threshold = threshold
        self._patience = max(1, round(end_of_speech / FRAME_SECONDS))
        self._needed = max(1, round(_MIN_SPEECH / FRAME_SECONDS))
        self._within = max(self._needed, round(_WITHIN / FRAME_SECONDS))
        self._frame = 0
        self._loud = 0
        self.speaking = False
        self.began = 0
        self.quiet = 0

    def push(self, probability: float) -> Turn | None:
        """Takes in the next frame."""
        self._frame += 1
        if not self.speaking:
            return self._listen(probability)
        self.quiet = self.quiet + 1 if probability < self._threshold - _DROP else 0
        if self.quiet < self._patience:
            return None
        self.reset()
        return Turn.ENDED

    def reset(self) -> None:
        """Nobody speaks, whatever was heard before."""
        self.speaking, self._loud, self.quiet = False, 0, 0

    def _listen(self, probability: float) -> Turn | None:
        if self._frame - self.began > self._within:
            self._loud = 0  # a soft sound after a click is not speech yet
        if probability >= self._threshold:
            if not self._loud:
                self.began = self._frame - 1
            self._loud += 1
        elif probability < self._threshold - _DROP:
            self._loud = 0
        if self._loud < self._needed:
            return None
        self.speaking, self.quiet = True, 0
        return Turn.STARTED
