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
class SpeechBatch:
    """Recordings and what is said in them. `samples` are float32 at 16 kHz, one tensor (samples,) a recording; `text`
    has a segment for each, prompt tokens included."""

    samples: tuple[torch.Tensor, ...]
    text: PackedTokens

    @property
    def labelled(self) -> int:
        """Tokens of which loss is computed."""
        return self.text.labelled

    def to(self, device: torch.device | str) -> "SpeechBatch":
        """The same on another device."""
        return SpeechBatch(tuple(one.to(device) for one in self.samples), self.text.to(device))
