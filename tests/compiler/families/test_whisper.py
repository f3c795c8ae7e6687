"""The family from configs alone: every published shape, with vocabularies made here."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from sottovoce_compiler.families import UnsupportedModelError, family_of
from sottovoce_compiler.families.whisper import non_speech_tokens, whisper_spec
from sottovoce_compiler.families.whisper_heads import PUBLISHED, later_half
from sottovoce_compiler.sources import Checkpoint, resolve

from ..whisper_case import CONFIG, VOCABULARY, Memory

# d_model, encoder layers, decoder layers, heads, mels, vocabulary: as their config.json says.
MODELS: dict[str, tuple[int, int, int, int, int, int]] = {
    "tiny.en": (384, 4, 4, 6, 80, 51864),
    "tiny": (384, 4, 4, 6, 80, 51865),
    "base.en": (512, 6, 6, 8, 80, 51864),
    "base": (512, 6, 6, 8, 80, 51865),
    "small.en": (768, 12, 12, 12, 80, 51864),
    "small": (768, 12, 12, 12, 80, 51865),
    "medium.en": (1024, 24, 24, 16, 80, 51864),
    "medium": (1024, 24, 24, 16, 80, 51865),
    "large-v2": (1280, 32, 32, 20, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866),
    "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
    "distil-small.en": (768, 12, 4, 12, 80, 51864),
    "distil-large-v2": (1280, 32, 2, 20, 80, 51865),
    "distil-large-v3": (1280, 32, 2, 20, 128, 51866),
}
CODES = re.findall(
    r"\w+",
    """en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml
    cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi
    lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue""",
)
CONTROLS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def vocabulary(size: int) -> list[bytes | str]:
    """Whisper's token table of that size: ordinary tokens, steering ones, 1501 timestamps."""
    ordinary = 50257 - (size == 51864)
    languages = [f"<|{code}|>" for code in CODES[: 99 + (size == 51866)]]
    table: list[bytes | str] = [bytes([i]) if i < 256 else b"w%d" % i for i in range(ordinary)]
    table += ["<|endoftext|>", "<|startoftranscript|>", *languages, *CONTROLS]
    return [*table, *(f"<|{step / 50:.2f}|>" for step in range(1501))]


def config_of(name: str) -> dict[str, Any]:
    width, encoder, decoder, heads, mels, size = MODELS[name]
    return {
        "model_type": "whisper",
        "d_model": width,
        "encoder_layers": encoder,
        "decoder_layers": decoder,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "num_mel_bins": mels,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "vocab_size": size,
        "activation_function": "gelu",
        "scale_embedding": False,
    }


def checkpoint(
    config: dict[str, Any], table: Sequence[bytes | str] = VOCABULARY, generation: dict[str, Any] | None = None
) -> Checkpoint:
    nothing = {"tokenizer_file": None, "licence": None, "revision": None, "sha256": {}}
    return Checkpoint("x", "x", config, generation or {}, Memory({}), table, **nothing)


def published(name: str, **generation: Any) -> Checkpoint:
    config = config_of(name)
    return checkpoint(config, vocabulary(config["vocab_size"]), generation)


def small(**changes: Any) -> Checkpoint:
    return checkpoint({**CONFIG, **changes})


@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_follows_from_its_config(name: str) -> None:
    width, encoder, decoder, _, mels, size = MODELS[name]
    spec = whisper_spec(published(name))
    assert (spec.width, spec.encoder_layers, spec.decoder_layers, spec.n_mels) == (width, encoder, decoder, mels)
    assert (spec.encoder_head_width, spec.decoder_head_width, spec.row_unit) == (64, 64, width)
    assert (spec.n_audio_ctx, spec.n_text_ctx, spec.vocab_size) == (1500, 448, size)
    assert spec.multilingual == (size > 51864)
    tokens = spec.tokens
    assert (tokens.end, tokens.start) == ((50257, 50258) if spec.multilingual else (50256, 50257))
    assert tokens.timestamp_begin == tokens.no_timestamps + 1 == size - 1501
    assert len(tokens.languages) == {51864: 0, 51865: 99, 51866: 100}[size]
    if spec.multilingual:
        assert tokens.languages[0] == ("en", tokens.start + 1)
        assert (tokens.translate, tokens.transcribe) == (tokens.start + len(tokens.languages) + 1, tokens.translate + 1)
    else:
        assert tokens.translate is tokens.transcribe is None
    assert spec.suppress_at_begin == (32, tokens.end)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("distil")])
def test_published_shapes_have_the_heads_that_were_published_for_them(name: str) -> None:
    _, _, decoder, heads, _, size = MODELS[name]
    spec = whisper_spec(published(name))
    assert spec.alignment_heads_known and spec.alignment_heads == PUBLISHED[decoder, heads, size]
    assert all(layer < decoder and head < heads for layer, head in spec.alignment_heads)
    assert list(spec.alignment_heads) == sorted(set(spec.alignment_heads))


@pytest.mark.parametrize("name", ["distil-large-v3", "distil-large-v2", "distil-small.en"])
def test_a_distilled_model_does_not_use_its_teachers_heads(name: str) -> None:
    """They were published with the student, and name layers that it does not have."""
    teachers = [[7, 0], [10, 17], [12, 18], [1, 3]]
    for spec in (whisper_spec(published(name, alignment_heads=teachers)), whisper_spec(published(name))):
        assert not spec.alignment_heads_known
        assert spec.alignment_heads == later_half(spec.decoder_layers, spec.decoder_heads)


def test_heads_of_the_checkpoint_count_before_those_of_its_shape() -> None:
    spec = whisper_spec(published("base", alignment_heads=[[5, 7], [2, 0], [2, 0]]))
    assert spec.alignment_heads_known and spec.alignment_heads == ((2, 0), (5, 7))


@pytest.mark.parametrize("heads", [[1, 2], [[1, 2, 3]], [["a", 1]], [None]])
def test_heads_that_are_no_pairs_are_refused(heads: list[Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"alignment_heads = .* pairs of layer and head"):
        whisper_spec(published("base", alignment_heads=heads))


@pytest.mark.parametrize(("layers", "first"), [(1, 0), (2, 1), (3, 1), (32, 16)])
def test_the_later_half_is_never_empty(layers: int, first: int) -> None:
    heads = later_half(layers, 2)
    assert heads[0] == (first, 0) and heads[-1] == (layers - 1, 1) and len(heads) == 2 * (layers - first)


def test_an_unknown_architecture_is_refused_by_name_with_what_is_supported() -> None:
    with pytest.raises(UnsupportedModelError, match=r"m: model_type 'wav2vec2' is not supported; supported: .*whisper"):
        family_of({"model_type": "wav2vec2"}, "m")
    with pytest.raises(UnsupportedModelError, match=r"'\(none\)'"):
        family_of({}, "m")
    assert family_of({"model_type": "whisper"}, "m") == "whisper"


@pytest.mark.parametrize("key", sorted(set(CONFIG) & {k for k in config_of("base") if k != "model_type"}))
@pytest.mark.parametrize("value", [None, 0, -1, "4", 1.5, True])
def test_a_size_that_is_no_positive_number_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{key} = {value!r}; a positive whole number"):
        whisper_spec(small(**{key: value}))


@pytest.mark.parametrize("key", ["encoder_attention_heads", "decoder_attention_heads"])
def test_heads_that_do_not_divide_the_width_are_refused(key: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"d_model = 64 does not divide by {key} = 5"):
        whisper_spec(small(**{key: 5}))


@pytest.mark.parametrize(
    ("key", "value"), [("activation_function", "relu"), ("scale_embedding", True), ("tie_word_embeddings", False)]
)
def test_what_the_lowering_would_silently_ignore_is_refused(key: str, value: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{key} = {value!r}; only"):
        whisper_spec(small(**{key: value}))


def test_a_vocabulary_that_is_not_whispers_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"no <\|startoftranscript\|> token; is it Whisper's"):
        whisper_spec(checkpoint(dict(CONFIG), [b"a", "<|endoftext|>"]))


def test_a_tokenizer_that_is_larger_than_the_model_is_refused() -> None:
    """A multilingual tokenizer beside an English-only model, for one."""
    with pytest.raises(UnsupportedModelError, match=r"first timestamp is token 266, .* vocab_size = 266"):
        whisper_spec(small(vocab_size=266))


def test_whether_a_model_is_multilingual_is_its_own_word_first() -> None:
    table = vocabulary(51865)
    assert not whisper_spec(checkpoint(config_of("base"), table, {"is_multilingual": False})).multilingual
    assert whisper_spec(checkpoint(dict(CONFIG), VOCABULARY, {"is_multilingual": True})).multilingual
    assert not whisper_spec(small()).multilingual


def test_suppressed_tokens_are_those_published_where_they_are_and_in_the_old_place_too() -> None:
    spec = whisper_spec(published("base", suppress_tokens=[9, 3, 3, 99999, -1], begin_suppress_tokens=[7]))
    assert (spec.suppress, spec.suppress_at_begin) == ((3, 9), (7,))
    config = {**config_of("base"), "suppress_tokens": [4], "begin_suppress_tokens": [5]}
    spec = whisper_spec(checkpoint(config, vocabulary(51865)))
    assert (spec.suppress, spec.suppress_at_begin) == ((4,), (5,))


def test_marks_of_non_speech_are_found_alone_and_after_a_space() -> None:
    table = [b"-", b" -", b"--", b" --", "♪".encode(), " ♪♪".encode(), b"\xe2\x99", b"a(", b" '", b"'", b"(", "<|x|>"]
    found = non_speech_tokens(checkpoint(dict(CONFIG), table))
    assert [table[i] for i in found] == [
        b" -", b"--", b" --", "♪".encode(), " ♪♪".encode(), b"\xe2\x99", b" '", b"(",
    ]  # fmt: skip


def test_the_manifest_parts_are_plain_json_with_what_the_device_reads() -> None:
    import json

    spec = whisper_spec(published("base"))
    audio, model, generation = spec.audio_json(), spec.model_json(), spec.generation_json()
    assert json.loads(json.dumps([audio, model, generation])) == [audio, model, generation]
    assert model["head_width"] * model["decoder_heads"] == spec.width
    assert audio["max_frames"] * audio["frame_samples"] == 30 * audio["sample_rate"]
    assert generation["tokens"]["languages"]["de"] == 50261


@pytest.mark.weights
def test_the_computed_suppress_list_is_the_one_published_with_base_apart_from_steering_tokens() -> None:
    checkpoint = resolve("whisper-base")
    steering = {i for i, token in enumerate(checkpoint.vocabulary) if isinstance(token, str)}
    given = set(checkpoint.generation_config["suppress_tokens"])
    assert set(non_speech_tokens(checkpoint)) == given - steering
    assert len(given - steering) > 80 and given & steering


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_the_table_has_the_heads_that_the_real_checkpoint_carries(name: str) -> None:
    checkpoint = resolve(name)
    spec = whisper_spec(checkpoint)
    given = {tuple(pair) for pair in checkpoint.generation_config["alignment_heads"]}
    assert set(PUBLISHED[spec.decoder_layers, spec.decoder_heads, spec.vocab_size]) == given
    assert spec.alignment_heads_known and set(spec.alignment_heads) == given


@pytest.mark.parametrize(("name", "settings"), [("tiny.en", {"hold_back": 0.2}), ("tiny", {}), ("base", {})])
def test_only_the_model_that_was_measured_has_a_streaming_setting_of_its_own(
    name: str, settings: dict[str, float]
) -> None:
    assert whisper_spec(published(name)).stream_json() == settings
