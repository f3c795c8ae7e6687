"""The numbers of a manifest are bounded before anything is sized by them."""

from typing import Any

import pytest

from sottovoce.engines.shapes import ChatShape, SpeechShape
from sottovoce.errors import BundleError

CHAT: dict[str, Any] = {"layers": 2, "kv_heads": 3, "head_width": 16, "vocab_size": 300, "context": 64}
MODEL: dict[str, Any] = {
    "decoder_layers": 2,
    "decoder_heads": 2,
    "head_width": 16,
    "vocab_size": 300,
    "text_context": 448,
}
AUDIO: dict[str, Any] = {"frame_samples": 320, "max_frames": 1500}


def test_a_cache_has_keys_and_values_of_every_layer_in_float32() -> None:
    assert ChatShape.of(CHAT).cache_bytes(10) == 2 * 2 * 3 * 16 * 4 * 10


def test_cross_attention_is_named_in_the_order_of_layers() -> None:
    assert SpeechShape.of(MODEL, AUDIO).cross_names() == [
        "cross_key_0",
        "cross_value_0",
        "cross_key_1",
        "cross_value_1",
    ]


@pytest.mark.parametrize("value", [None, 0, -1, True, "2", 1.5, 1 << 40])
@pytest.mark.parametrize("key", list(CHAT))
def test_what_is_missing_or_absurd_is_named(key: str, value: object) -> None:
    with pytest.raises(BundleError, match=rf"the manifest has {key} = .*; 1 to \d+ is possible"):
        ChatShape.of({**CHAT, key: value})


@pytest.mark.parametrize("key", [*MODEL, *AUDIO])
def test_so_it_is_for_speech(key: str) -> None:
    with pytest.raises(BundleError, match=f"the manifest has {key} = 0"):
        SpeechShape.of({**MODEL, **({key: 0} if key in MODEL else {})}, {**AUDIO, **({key: 0} if key in AUDIO else {})})


def test_a_pooling_that_nobody_knows_is_named() -> None:
    with pytest.raises(BundleError, match="pooling = 'max'; mean, cls, last are possible"):
        ChatShape.of({**CHAT, "pooling": "max"})
