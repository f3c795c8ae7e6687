"""Random Whispers in training, batches for them, and the same model in transformers and PEFT."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.finetune.batches import IGNORED, LogMel, PackedTokens, SpeechBatch
from sottovoce_compiler.finetune.model.decoder import Kept
from sottovoce_compiler.finetune.model.log_mel import log_mel
from sottovoce_compiler.finetune.model.whisper import WhisperTraining
from sottovoce_kernels.segments import Segments

from ...whisper_case import CONFIG, checkpoint_of, random_model, reference_run, sweep

PROMPT = (257, 258, 262, 265)
TEXTS = ((*PROMPT, 72, 101, 108, 108, 111, 256), (*PROMPT, 33, 256), (*PROMPT, 65, 66, 67, 256))
SHORT: Mapping[str, Any] = {**CONFIG, "max_source_positions": 150}  # a window of 3 s, which costs a tenth


def recordings() -> list[np.ndarray]:
    """Of different lengths."""
    return [sweep(1.3), sweep(2.1, 1), sweep(0.4, 2)]


def training(model: Any, config: Mapping[str, Any] = CONFIG, **kept: Any) -> WhisperTraining:
    checkpoint = checkpoint_of(model, config)
    return WhisperTraining(checkpoint, whisper_spec(checkpoint), Kept(**kept)).eval()


def packed(texts: Sequence[Sequence[int]] = TEXTS, learned_from: int = len(PROMPT)) -> PackedTokens:
    labels = [[*(IGNORED,) * (learned_from - 1), *text[learned_from:], IGNORED] for text in texts]
    return PackedTokens(
        torch.tensor([token for text in texts for token in text]),
        torch.tensor([label for row in labels for label in row]),
        torch.cat([torch.arange(len(text)) for text in texts]),
        Segments.of([len(text) for text in texts]),
    )


def batch(
    sounds: Sequence[np.ndarray],
    texts: Sequence[Sequence[int]] = TEXTS,
    window: int = 1500,
    *,
    full_window: bool = False,
) -> SpeechBatch:
    features = tuple(log_mel(torch.from_numpy(one), 80, window, full_window=full_window) for one in sounds)
    return SpeechBatch(features, packed(texts))


def logits(model: WhisperTraining, given: SpeechBatch) -> list[torch.Tensor]:
    """Of each text, (tokens, vocabulary)."""
    every = functional.linear(model.hidden(given), model.decoder.embed_tokens)
    return [every[begin:end] for begin, end in given.text.segments.bounds()]


def theirs(model: Any, sounds: Sequence[np.ndarray], texts: Sequence[Sequence[int]] = TEXTS) -> list[torch.Tensor]:
    """transformers' logits of each text, at the full window."""
    return [reference_run(model, sound, [text]).logits[0] for sound, text in zip(sounds, texts, strict=True)]


def with_peft(model: Any, **config: Any) -> Any:
    """`model` under a PEFT adapter whose A and B are both random."""
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    wrapped = get_peft_model(model, LoraConfig(target_modules=targets, **config))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return wrapped


def peft_parameters(wrapped: Any, part: str) -> dict[str, torch.nn.Parameter]:
    """Module -> its lora_A or lora_B ("A", "B")."""
    found = {}
    for name, parameter in wrapped.named_parameters():
        if f".lora_{part}." in name:
            found[name.removeprefix("base_model.model.").split(".lora_")[0]] = parameter
    return found


def silence(frames: int) -> LogMel:
    """A window of digital silence, none of it compressed."""
    return log_mel(torch.zeros(0), 80, frames, full_window=True)


__all__ = ["CONFIG", "random_model", "sweep"]
