"""What one forward pass is given: sequences one behind the other, without padding."""

from dataclasses import dataclass

import torch

from sottovoce_kernels.segments import Segments

IGNORED = -100  # a label of which no loss is computed


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Examples one behind the other. `labels` are shifted: labels[i] is what follows tokens[i], `IGNORED` where nothing
    is to be learned, always so at the end of a segment. `positions` begin at 0 in each segment."""

    tokens: torch.Tensor  # (T,) int64
    labels: torch.Tensor  # (T,) int64
    positions: torch.Tensor  # (T,) int64
    segments: Segments
    examples: tuple[int, ...] = ()  # which lines of the data they are, for messages

    @property
    def labelled(self) -> int:
        """Tokens of which loss is computed."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device | str) -> "PackedTokens":
        """The same on another device."""
        return PackedTokens(
            self.tokens.to(device),
            self.labels.to(device),
            self.positions.to(device),
            self.segments.to(device),
            self.examples,
        )


@dataclass(frozen=True, slots=True)
class LogMel:
    """A recording as Whisper hears it: `values` (mels, 2 t) float32, frames of 10 ms. Of the t frames of 20 ms that the
    convolutions make of them, `context` are heard as they are; the rest of the window is silence, heard compressed."""

    values: torch.Tensor
    context: int

    def to(self, device: torch.device | str) -> "LogMel":
        """The same on another device."""
        return LogMel(self.values.to(device), self.context)


@dataclass(frozen=True, slots=True)
class SpeechBatch:
    """Recordings and what is said in them: `text` has a segment for each, the tokens that
    steer included."""

    features: tuple[LogMel, ...]
    text: PackedTokens

    @property
    def labelled(self) -> int:
        """Tokens of which loss is computed."""
        return self.text.labelled

    def to(self, device: torch.device | str) -> "SpeechBatch":
        """The same on another device."""
        return SpeechBatch(tuple(one.to(device) for one in self.features), self.text.to(device))
