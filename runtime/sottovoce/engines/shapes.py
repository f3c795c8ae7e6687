"""The numbers of a model that an engine sizes its buffers by, read from a manifest: bounded, as a bundle is untrusted.

Nothing here imports an engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.errors import BundleError

_POOLINGS = ("mean", "cls", "last")
_MOST_LAYERS, _MOST_HEADS, _MOST_HEAD_WIDTH, _MOST_TOKENS = 256, 256, 1024, 1 << 20


def bounded(group: Mapping[str, Any], key: str, most: int) -> int:
    """A whole number from 1 to `most`. Raises BundleError naming the number that is missing or absurd."""
    value = group.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise BundleError(f"the manifest has {key} = {value!r:.50}; 1 to {most} is possible")
    return value


@dataclass(frozen=True, slots=True)
class SpeechShape:
    """Of a speech bundle; from the manifest's `model` and `audio`."""

    layers: int
    heads: int
    head_width: int
    vocab_size: int
    text_context: int
    frame_samples: int
    max_frames: int

    @classmethod
    def of(cls, model: Mapping[str, Any], audio: Mapping[str, Any]) -> "SpeechShape":
        """Raises BundleError naming the number that is missing or absurd."""
        return cls(
            layers=bounded(model, "decoder_layers", _MOST_LAYERS),
            heads=bounded(model, "decoder_heads", _MOST_HEADS),
            head_width=bounded(model, "head_width", _MOST_HEAD_WIDTH),
            vocab_size=bounded(model, "vocab_size", _MOST_TOKENS),
            text_context=bounded(model, "text_context", 1 << 14),
            frame_samples=bounded(audio, "frame_samples", 1 << 12),
            max_frames=bounded(audio, "max_frames", 1 << 14),
        )

    def cross_names(self) -> list[str]:
        """Of the encoder's keys and values, in the graphs' order."""
        return [f"cross_{kind}_{i}" for i in range(self.layers) for kind in ("key", "value")]


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Of a chat bundle; from the manifest's `model`. `pooling` is None where the model is not made for embeddings."""

    layers: int
    kv_heads: int
    head_width: int
    vocab_size: int
    context: int
    pooling: str | None = None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> "ChatShape":
        """Raises BundleError naming the number that is missing or absurd."""
        pooling = model.get("pooling")
        if pooling is not None and pooling not in _POOLINGS:
            raise BundleError(f"the manifest has pooling = {pooling!r:.50}; {', '.join(_POOLINGS)} are possible")
        return cls(
            layers=bounded(model, "layers", _MOST_LAYERS),
            kv_heads=bounded(model, "kv_heads", _MOST_HEADS),
            head_width=bounded(model, "head_width", _MOST_HEAD_WIDTH),
            vocab_size=bounded(model, "vocab_size", _MOST_TOKENS),
            context=bounded(model, "context", 1 << 20),
            pooling=pooling,
        )

    def cache_bytes(self, positions: int) -> int:
        """Bytes that the cache of so many positions takes: float32 keys and values of every layer."""
        return 2 * self.layers * self.kv_heads * self.head_width * 4 * positions
