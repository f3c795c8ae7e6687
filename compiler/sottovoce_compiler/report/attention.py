"""The source as it is fed a text: where transformers' cross-attention looks, over the full window of 30 s, and what it
expects next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.report.reference import SAMPLE_RATE

Float = NDArray[np.float32]


def source_prompt(parts: Any) -> list[int]:
    """The tokens that begin a transcript without timestamps, in English where the model knows several languages."""
    special = parts.special
    language = special.languages.get("en", next(iter(special.languages.values()), None))
    steering = [] if language is None else [language, special.tasks["transcribe"]]
    return [special.start, *steering, special.no_timestamps]


def forced_logits(parts: Any, samples: Float, tokens: Sequence[int]) -> Float:
    """Logits (tokens, vocabulary) float32 after each of `tokens`, which are fed at once after the prompt; the source's
    full window."""
    import torch

    prompt = source_prompt(parts)
    with torch.inference_mode():
        features = parts.extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        found = parts.model(input_features=features, decoder_input_ids=torch.tensor([[*prompt, *tokens]]))
    logits: Float = found.logits[0, len(prompt) :].float().numpy()
    return logits


def cross_attention(parts: Any, samples: Float, tokens: Sequence[int]) -> Float:
    """(layers, heads, tokens, frames) float32 over the source's full window, as `tokens` are fed at once."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    with torch.inference_mode():
        features = parts.extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        parts.model.set_attn_implementation("sdpa")
        encoded = parts.model.model.encoder(features).last_hidden_state
        parts.model.set_attn_implementation("eager")  # the only one that gives its weights
        found = parts.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            decoder_input_ids=torch.tensor([list(tokens)]),
            output_attentions=True,
        )
    attention: Float = torch.cat(list(found.cross_attentions)).numpy()
    return attention
