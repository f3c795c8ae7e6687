import numpy as np
import pytest

from sottovoce_compiler.report import reference
from sottovoce_compiler.report.reference import SourceModel, _advance
from sottovoce_compiler.sources import SourceError

from .source_case import SPECIAL, VOCABULARY, WINDOW_SECONDS, checkpoint, noise, random_arrays

T0 = len(VOCABULARY)  # the id of <|0.00|>


@pytest.fixture(autouse=True)
def nothing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are never sure of anything: by the thresholds they would always be asked again or
    dropped.
    """
    monkeypatch.setattr(reference, "TEMPERATURES", (0.0,))
    monkeypatch.setattr(reference, "NO_SPEECH_THRESHOLD", 2.0)


def test_tokens_are_those_of_transformers_own_short_form_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(reference, "_advance", lambda tokens, begin, length: (tokens, length))
    model = SourceModel(checkpoint())
    said = model.transcribe([noise(WINDOW_SECONDS)], ["de"])[0]
    parts = model.load()
    features = parts.extractor([noise(WINDOW_SECONDS)], sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        theirs = parts.model.generate(
            features, language="de", task="transcribe", return_timestamps=True, max_new_tokens=16,
            force_unique_generate_call=True,
        )[0].tolist()  # fmt: skip
    prompt = [257, 259, 256 + SPECIAL.index("<|transcribe|>")]
    assert theirs[:3] == prompt
    ours = list(said.tokens)
    assert len(ours) > 3 and theirs[3 : 3 + len(ours)] == ours


def test_weights_are_the_checkpoint_s_in_float32_and_the_head_is_the_embedding() -> None:
    import torch

    arrays = random_arrays()
    model = SourceModel(checkpoint(arrays)).load().model
    embedding = model.model.decoder.embed_tokens.weight
    assert model.proj_out.weight.data_ptr() == embedding.data_ptr() and embedding.dtype == torch.float32
    for name, array in arrays.items():
        assert np.array_equal(model.state_dict()[name].numpy(), array.astype(np.float32)), name


def test_clips_together_say_what_they_say_alone() -> None:
    clips = [noise(0.4, 1), noise(WINDOW_SECONDS, 2), noise(3.1, 3)]
    model = SourceModel(checkpoint())
    together = model.transcribe(clips, ["en", None, "ja"])
    alone = [model.transcribe([clip], [language])[0] for clip, language in zip(clips, ["en", None, "ja"], strict=True)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.language for one in together] == [one.language for one in alone]
    assert len({one.tokens for one in together}) > 1


def test_the_language_is_heard_even_where_it_is_given() -> None:
    given, free = SourceModel(checkpoint()).transcribe([noise(1), noise(1)], ["ja", None])
    assert given.language == free.language and given.language in ("en", "de", "ja")
    assert given.language_probability is not None and 1 / 3 <= given.language_probability <= 1


def test_an_english_only_model_hears_no_language() -> None:
    said = SourceModel(checkpoint(multilingual=False)).transcribe([noise(1)], ["en"])[0]
    assert (said.language, said.language_probability) == (None, None)
    assert said.tokens


def test_long_audio_is_heard_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    decode = reference._decode_windows

    def spy(parts: reference._Parts, runs: list[reference._Run]) -> None:
        heard.append(len(runs[0].window(parts)))
        decode(parts, runs)

    monkeypatch.setattr(reference, "_decode_windows", spy)
    monkeypatch.setattr(reference, "_advance", lambda tokens, begin, length: (tokens, length))
    SourceModel(checkpoint()).transcribe([noise(5)], ["en"])
    assert heard == [32_000, 32_000, 16_000]


@pytest.mark.parametrize("samples", [0, 1, 800])
def test_next_to_nothing_is_one_window(samples: int) -> None:
    assert SourceModel(checkpoint()).transcribe([noise(1)[:samples]], ["en"])[0] is not None


def test_a_silent_window_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "NO_SPEECH_THRESHOLD", -1.0)
    monkeypatch.setattr(reference, "LOG_PROB_THRESHOLD", 1.0)
    said = SourceModel(checkpoint()).transcribe([noise(3)], ["en"])[0]
    assert (said.text, said.tokens) == ("", ())


def test_a_doubtful_window_is_heard_again_and_always_with_the_same_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greedy = SourceModel(checkpoint()).transcribe([noise(2)], ["en"])[0]
    monkeypatch.setattr(reference, "TEMPERATURES", (0.0, 5.0))
    monkeypatch.setattr(reference, "LOG_PROB_THRESHOLD", 1.0)
    first, second = (SourceModel(checkpoint()).transcribe([noise(2)], ["en"])[0] for _ in range(2))
    assert first.tokens == second.tokens != greedy.tokens


def test_a_missing_or_misshapen_tensor_is_named() -> None:
    arrays = random_arrays()
    name = "model.decoder.layers.1.fc1.bias"
    with pytest.raises(SourceError, match=f"no tensor {name}"):
        SourceModel(checkpoint({key: value for key, value in arrays.items() if key != name})).load()
    with pytest.raises(SourceError, match=rf"{name} has shape \(3,\), by config.json it has \(32,\)"):
        SourceModel(checkpoint(arrays | {name: np.zeros(3, np.float32)})).load()


def test_a_checkpoint_without_whisper_s_tokens_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(SourceError, match="startoftranscript"):
        SourceModel(replace(checkpoint(), vocabulary=[b"a", b"b"])).load()


@pytest.mark.parametrize(
    ("tokens", "kept", "seconds"),
    [
        ([T0, 5, T0 + 20], [T0, 5, T0 + 20], 1.0),  # one segment, then nothing more is said
        ([T0, 5, T0 + 20, T0 + 20, 6], [T0, 5, T0 + 20], 0.4),  # broke off in the second segment
        ([T0, 5, T0 + 20, T0 + 20, 6, T0 + 40], [T0, 5, T0 + 20, T0 + 20, 6, T0 + 40], 1.0),
        ([T0, 5, T0 + 20, T0 + 20], [T0, 5, T0 + 20], 0.4),  # the next segment begins here
        ([5, 6], [5, 6], 1.0),
        ([], [], 1.0),
        ([T0, T0, 5], [T0, T0, 5], 1.0),  # a pair at the very start would never end
        ([T0, 5, T0 + 80, T0 + 80, 6], [T0, 5, T0 + 80, T0 + 80, 6], 1.0),  # beyond the audio
    ],
)
def test_a_window_goes_on_from_the_last_segment_that_ended(tokens: list[int], kept: list[int], seconds: float) -> None:
    assert _advance(tokens, T0, 16_000) == (kept, round(seconds * 16_000))
