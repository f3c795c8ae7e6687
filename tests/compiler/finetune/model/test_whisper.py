"""Whisper in training against transformers, PEFT and the compiled encoder; recordings of a batch against each other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from sottovoce_compiler.adapter import placed
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.finetune.batches import IGNORED, LogMel, SpeechBatch
from sottovoce_compiler.finetune.model.adapted import Lora, attach_all
from sottovoce_compiler.finetune.model.decoder import Kept
from sottovoce_compiler.finetune.model.whisper import WhisperTraining
from sottovoce_compiler.lowerings.onnx.linear import FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import load_samples
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.sources.peft import open_adapter

from ...whisper_case import CONFIG, checkpoint_of, lower, random_model
from .whisper_training_case import (
    PROMPT,
    SHORT,
    TEXTS,
    batch,
    logits,
    packed,
    peft_parameters,
    recordings,
    theirs,
    training,
    with_peft,
)

CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # float32, sums in another order
FP32 = Recipe(FloatLinear(), FloatLinear(), FloatLinear(), half_tables=False)


def test_over_the_full_window_the_logits_are_transformers_own() -> None:
    model = random_model()
    found = logits(training(model), batch(recordings(), full_window=True))
    for ours, expected in zip(found, theirs(model, recordings()), strict=True):
        torch.testing.assert_close(ours, expected, **CLOSE)


@pytest.mark.parametrize("changes", [{"num_mel_bins": 128}, {"encoder_layers": 1, "decoder_layers": 3}])
def test_other_shapes_too(changes: dict[str, int]) -> None:
    config = {**CONFIG, **changes}
    model = random_model(config)
    ours = training(model, config)
    given = batch(recordings()[:1], TEXTS[:1], full_window=True)
    if "num_mel_bins" in changes:
        from sottovoce_compiler.finetune.model.log_mel import log_mel

        feature = log_mel(torch.from_numpy(recordings()[0]), 128, 1500, full_window=True)
        given = SpeechBatch((feature,), given.text)
    torch.testing.assert_close(logits(ours, given)[0], theirs(model, recordings()[:1], TEXTS[:1])[0], **CLOSE)


def test_the_loss_is_the_sum_over_labelled_tokens() -> None:
    ours, given = training(random_model()), batch(recordings())
    loss = ours(given)
    every = torch.cat(logits(ours, given))
    expected = functional.cross_entropy(every, given.text.labels, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    assert loss.tokens == given.labelled == sum(len(text) - len(PROMPT) for text in TEXTS)


def test_compressed_silence_is_what_the_compiled_encoder_computes(tmp_path: Path) -> None:
    model = random_model()
    lowered, ours = lower(checkpoint_of(model), FP32, tmp_path), training(model)
    sound = recordings()[1]
    cross = lowered.encode(sound)
    encoded = ours.encode(batch([sound], TEXTS[:1]).features)
    assert encoded.bias is not None
    count = len(encoded.frames)
    np.testing.assert_allclose(encoded.bias, cross["key_bias"][0, 0, 0, :count], atol=1e-6)
    assert (cross["key_bias"][0, 0, 0, count:] < -1e8).all()  # what the graph adds is hidden
    for i, layer in enumerate(ours.decoder.layers):
        _, values = layer.encoder_attn.keys_and_values(encoded.frames)
        np.testing.assert_allclose(
            values.detach().transpose(0, 1).numpy(), cross[f"cross_value_{i}"][0, :, :count], atol=2e-3
        )


def test_each_recording_of_a_batch_is_heard_as_if_alone() -> None:
    ours, sounds = training(random_model()), recordings()
    together = logits(ours, batch(sounds))
    for at, found in enumerate(together):
        alone = logits(ours, batch(sounds[at : at + 1], TEXTS[at : at + 1]))[0]
        torch.testing.assert_close(found, alone, **CLOSE)


def test_another_first_recording_or_text_leaves_the_second_as_it_was() -> None:
    ours, sounds = training(random_model()), recordings()
    before = logits(ours, batch(sounds))
    louder = logits(ours, batch([sounds[0] * 0.2, *sounds[1:]]))
    reworded = logits(ours, batch(sounds, [(*PROMPT, 90, 91, 92, 93, 94, 256), *TEXTS[1:]]))
    assert not torch.allclose(before[0], louder[0], atol=1e-3)
    assert not torch.allclose(before[0], reworded[0], atol=1e-3)
    for at in (1, 2):
        assert torch.equal(before[at], louder[at])
        assert torch.equal(before[at], reworded[at])


def test_names_and_gradients_are_pefts_own() -> None:
    model = random_model(SHORT)
    ours = training(model, SHORT)
    wrapped = with_peft(model, r=4, lora_alpha=6)
    a, b = peft_parameters(wrapped, "A"), peft_parameters(wrapped, "B")
    attach_all(ours.linears(), Lora(4, 6.0))
    assert ours.adapted().keys() == a.keys() == b.keys()
    with torch.no_grad():
        for name, layer in ours.adapted().items():
            assert layer.lora_a is not None and layer.lora_b is not None
            layer.lora_a.copy_(a[name])
            layer.lora_b.copy_(b[name])

    given = batch(recordings(), window=150, full_window=True)
    ours(given).total.backward()
    total = torch.zeros(())
    for feature, text, (begin, end) in zip(given.features, TEXTS, given.text.segments.bounds(), strict=True):
        found = wrapped(input_features=feature.values[None], decoder_input_ids=torch.tensor([text])).logits[0]
        labels = given.text.labels[begin:end]
        total = total + functional.cross_entropy(found, labels, ignore_index=IGNORED, reduction="sum")
    total.backward()
    for name, layer in ours.adapted().items():
        assert layer.lora_a is not None and layer.lora_b is not None
        for mine, other in ((layer.lora_a, a[name]), (layer.lora_b, b[name])):
            assert mine.grad is not None and other.grad is not None
            assert mine.grad.abs().max() > 0, name
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-3)


def test_a_peft_adapter_on_transformers_model_is_merged_where_ours_has_it(tmp_path: Path) -> None:
    model = random_model(SHORT)
    names = set(training(model, SHORT).linears())
    with_peft(model, r=4, lora_alpha=6).save_pretrained(tmp_path)
    pairs = placed(open_adapter(tmp_path), checkpoint_of(random_model(SHORT), SHORT))
    assert {pair.module for pair in pairs.values()} == names
    assert set(pairs) == {f"{name}.weight" for name in names}


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        ours = training(random_model(SHORT), SHORT)
        attach_all(ours.linears(), Lora(4, 6.0))
        ours.checkpointing = checkpointing
        ours.train()(batch(recordings(), window=150)).total.backward()
        gradients.append([p.grad for p in ours.parameters() if p.requires_grad])
    assert len(gradients[0]) == 2 * 32
    for kept, again in zip(*gradients, strict=True):
        assert kept is not None and again is not None
        assert torch.equal(kept, again)


def test_only_adapters_are_trained_and_detaching_gives_the_base_back() -> None:
    ours, given = training(random_model(SHORT), SHORT), batch(recordings(), window=150)
    before = ours(given).total
    assert not [name for name, p in ours.named_parameters() if p.requires_grad]
    attach_all(ours.linears(), Lora(4, 6.0))
    for layer in ours.adapted().values():
        assert layer.lora_b is not None
        torch.nn.init.normal_(layer.lora_b)
    assert ours(given).total != before
    for layer in ours.linears().values():
        layer.detach()
    assert torch.equal(ours(given).total, before)
    assert not ours.adapted()


def test_bfloat16_is_close() -> None:
    model = random_model()
    exact, rough = training(model), training(model, dtype=torch.bfloat16)
    given = batch(recordings())
    assert float(rough(given).total) == pytest.approx(float(exact(given).total), rel=2e-2)


def test_a_batch_without_labels_has_no_loss() -> None:
    ours = training(random_model(SHORT), SHORT)
    given = batch(recordings()[:1], TEXTS[:1], window=150)
    silent = SpeechBatch(given.features, packed(TEXTS[:1], learned_from=len(TEXTS[0])))
    loss = ours(silent)
    assert (loss.tokens, float(loss.total)) == (0, 0.0)


@pytest.mark.weights
def test_tiny_in_english_says_what_transformers_says() -> None:
    checkpoint = resolve("whisper-tiny.en")
    spec = whisper_spec(checkpoint)
    ours = WhisperTraining(checkpoint, spec, Kept()).eval()
    reference = SourceModel(checkpoint).load().model
    clip = next(clip for clip in builtin_set().clips if clip.is_speech and 3 < clip.seconds < 12)
    text = [spec.tokens.start, spec.tokens.no_timestamps, 843, 523, 616, 5891, 3399]
    given = batch([load_samples(clip.file)], [text], full_window=True)
    expected = theirs(reference, [load_samples(clip.file)], [text])[0]
    found = logits(ours, given)[0]
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-4)  # logits are up to 30 here
    compressed = logits(ours, batch([load_samples(clip.file)], [text]))[0]
    assert float(divergence(expected, compressed).mean()) < 0.05


def divergence(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """KL in nats of each row."""
    log_expected, log_found = expected.log_softmax(-1), found.log_softmax(-1)
    return (log_expected.exp() * (log_expected - log_found)).sum(-1)


def test_a_window_that_is_full_of_speech_has_no_bias() -> None:
    ours = training(random_model(SHORT), SHORT)
    full = batch([np.ones(3 * 16_000, np.float32) * 0.1], TEXTS[:1], window=150)
    encoded = ours.encode(full.features)
    assert encoded.bias is None
    assert encoded.segments.lengths == (150,)
    assert isinstance(full.features[0], LogMel)
