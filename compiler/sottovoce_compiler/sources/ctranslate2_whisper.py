"""CTranslate2's WhisperSpec in Hugging Face's terms: names, fused projections, configuration.

Does not know the file format (`ctranslate2`). CTranslate2 keeps no Hugging Face configuration: sizes follow
from the weights' shapes, token ids from the vocabulary, and the rest is what all of Whisper has in common.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce_compiler.sources import vocabulary
from sottovoce_compiler.sources.checkpoint import Array, Checkpoint, SourceError
from sottovoce_compiler.sources.ctranslate2 import MODEL, VOCABULARIES, Model
from sottovoce_compiler.sources.files import digests, licence_in_readme, read_json_object
from sottovoce_compiler.sources.vocabulary import Token

SPECIFICATION = "WhisperSpec"
HEAD_SIZE = 64  # of every published Whisper; used where an old file does not say how many heads there are
MAX_LAYERS = 256
ACTIVATIONS = {
    0: "relu",
    1: "gelu_pytorch_tanh",
    2: "silu",
    3: "gelu",
}  # CTranslate2's ids (specs/common_spec.py)
EMBEDDINGS = "decoder/embeddings/weight"
PROJECTION = "decoder/projection/weight"


@dataclass(frozen=True)
class Sizes:
    """What the shapes in the file say about the model."""

    d_model: int
    mel_bins: int
    ffn: int
    vocabulary: int
    source_positions: int
    target_positions: int
    encoder_layers: int
    decoder_layers: int


@dataclass(frozen=True)
class Part:
    """One Hugging Face tensor: rows `start` to `stop` of a variable, and the shape it must have."""

    variable: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def stop(self) -> int:
        """The row after the last one."""
        return self.start + self.shape[0]


@dataclass(frozen=True)
class WhisperTensors:
    """`Tensors` over a model.bin; quantized weights come as float32."""

    model: Model
    parts: Mapping[str, Part]

    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        return sorted(self.parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its data."""
        return self._part(name).shape

    def load(self, name: str) -> Array:
        """A fresh array: float32 or float16 as stored; bfloat16 and dequantized integers as float32."""
        part = self._part(name)
        return self.model.load(part.variable, part.start, part.stop)

    def _part(self, name: str) -> Part:
        try:
            return self.parts[name]
        except KeyError:
            raise SourceError(f"there is no tensor {name!r} in {self.model.path}") from None


def open_whisper(folder: Path, model: Model) -> Checkpoint:
    """The checkpoint of a CTranslate2 Whisper folder whose model.bin has been opened as `model`."""
    sizes = _sizes(model)
    tensors = WhisperTensors(model, _checked(model, sizes))
    tokens = _vocabulary(folder, sizes)
    config = _config(model, sizes, tokens, tied="proj_out.weight" not in tensors.parts)
    config_file, tokenizer = folder / "config.json", folder / "tokenizer.json"
    settings = read_json_object(config_file) if config_file.is_file() else {}
    read = [folder / name for name in (MODEL, *VOCABULARIES, "config.json", "tokenizer.json")]
    return Checkpoint(
        spec=str(folder),
        name=folder.resolve().name,
        config=config,
        generation_config=_generation_config(settings, config, tokens),
        tensors=tensors,
        vocabulary=tokens,
        tokenizer_file=tokenizer if tokenizer.is_file() else None,
        licence=licence_in_readme(folder),
        revision=None,
        sha256=digests(path for path in read if path.is_file()),
    )


def _sizes(model: Model) -> Sizes:
    conv = _shape(model, "encoder/conv1/weight", 3)
    return Sizes(
        d_model=conv[0],
        mel_bins=conv[1],
        ffn=_shape(model, "encoder/layer_0/ffn/linear_0/weight", 2)[0],
        vocabulary=_shape(model, EMBEDDINGS, 2)[0],
        source_positions=_shape(model, "encoder/position_encodings/encodings", 2)[0],
        target_positions=_shape(model, "decoder/position_encodings/encodings", 2)[0],
        encoder_layers=_count_layers(model, "encoder"),
        decoder_layers=_count_layers(model, "decoder"),
    )


def _shape(model: Model, name: str, rank: int) -> tuple[int, ...]:
    shape = model.variable(name).shape
    if len(shape) != rank or 0 in shape:
        raise SourceError(f"{model.path}: {name} has the shape {list(shape)}, expected {rank} sizes above 0")
    return shape


def _count_layers(model: Model, side: str) -> int:
    count = 0
    while f"{side}/layer_{count}/self_attention/linear_0/weight" in model.variables:
        count += 1
    if not 0 < count <= MAX_LAYERS:
        raise SourceError(f"{model.path} has {count} {side} layers, expected 1 to {MAX_LAYERS}")
    return count


def _checked(model: Model, sizes: Sizes) -> dict[str, Part]:
    parts = dict(_parts(sizes))
    # A projection of its own is rare: Whisper's head is the token embedding, which the file then says by an
    # alias.
    if PROJECTION in model.variables and model.variables[PROJECTION] != model.variables[EMBEDDINGS]:
        parts["proj_out.weight"] = Part(PROJECTION, (sizes.vocabulary, sizes.d_model))
    rows = {part.variable: 0 for part in parts.values()}
    for part in parts.values():
        rows[part.variable] = max(rows[part.variable], part.stop)
    for name, part in parts.items():
        expected = (rows[part.variable], *part.shape[1:])
        if (shape := model.variable(part.variable).shape) != expected:
            raise SourceError(f"{model.path}: {part.variable} ({name}) is {list(shape)}, expected {list(expected)}")
    return parts


def _parts(sizes: Sizes) -> Iterator[tuple[str, Part]]:
    d = sizes.d_model
    yield from _weight_and_bias("model.encoder.conv1", "encoder/conv1", (d, sizes.mel_bins, 3))
    yield from _weight_and_bias("model.encoder.conv2", "encoder/conv2", (d, d, 3))
    yield "model.decoder.embed_tokens.weight", Part(EMBEDDINGS, (sizes.vocabulary, d))
    for side, positions, layers, layer_parts in (
        ("encoder", sizes.source_positions, sizes.encoder_layers, _encoder_layer),
        ("decoder", sizes.target_positions, sizes.decoder_layers, _decoder_layer),
    ):
        yield (
            f"model.{side}.embed_positions.weight",
            Part(f"{side}/position_encodings/encodings", (positions, d)),
        )
        yield from _norm(f"model.{side}.layer_norm", f"{side}/layer_norm", d)
        for index in range(layers):
            yield from layer_parts(f"model.{side}.layers.{index}", f"{side}/layer_{index}", sizes)


def _encoder_layer(name: str, scope: str, sizes: Sizes) -> Iterator[tuple[str, Part]]:
    d = sizes.d_model
    yield from _norm(f"{name}.self_attn_layer_norm", f"{scope}/self_attention/layer_norm", d)
    yield from _fused(f"{name}.self_attn", f"{scope}/self_attention/linear_0", d, ("q_proj", "k_proj", "v_proj"))
    yield from _weight_and_bias(f"{name}.self_attn.out_proj", f"{scope}/self_attention/linear_1", (d, d))
    yield from _norm(f"{name}.final_layer_norm", f"{scope}/ffn/layer_norm", d)
    yield from _weight_and_bias(f"{name}.fc1", f"{scope}/ffn/linear_0", (sizes.ffn, d))
    yield from _weight_and_bias(f"{name}.fc2", f"{scope}/ffn/linear_1", (d, sizes.ffn))


def _decoder_layer(name: str, scope: str, sizes: Sizes) -> Iterator[tuple[str, Part]]:
    d = sizes.d_model
    yield from _encoder_layer(name, scope, sizes)
    yield from _norm(f"{name}.encoder_attn_layer_norm", f"{scope}/attention/layer_norm", d)
    yield from _fused(f"{name}.encoder_attn", f"{scope}/attention/linear_0", d, ("q_proj",))
    yield from _fused(f"{name}.encoder_attn", f"{scope}/attention/linear_1", d, ("k_proj", "v_proj"))
    yield from _weight_and_bias(f"{name}.encoder_attn.out_proj", f"{scope}/attention/linear_2", (d, d))


def _norm(name: str, scope: str, size: int) -> Iterator[tuple[str, Part]]:
    yield f"{name}.weight", Part(f"{scope}/gamma", (size,))
    yield f"{name}.bias", Part(f"{scope}/beta", (size,))


def _weight_and_bias(name: str, scope: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Part]]:
    yield f"{name}.weight", Part(f"{scope}/weight", shape)
    yield f"{name}.bias", Part(f"{scope}/bias", shape[:1])


def _fused(name: str, scope: str, size: int, projections: Sequence[str]) -> Iterator[tuple[str, Part]]:
    """The rows of a fused linear. k has no bias: it would add the same to all scores of a query."""
    for index, projection in enumerate(projections):
        yield f"{name}.{projection}.weight", Part(f"{scope}/weight", (size, size), start=index * size)
        if projection != "k_proj":
            yield f"{name}.{projection}.bias", Part(f"{scope}/bias", (size,), start=index * size)


def _vocabulary(folder: Path, sizes: Sizes) -> list[Token]:
    own = vocabulary.read_ctranslate2(folder)
    tokens = vocabulary.merge(vocabulary.read_tokenizer(folder), own, folder)
    if not tokens:
        raise SourceError(f"no tokens in {folder}; looked for {', '.join(VOCABULARIES)}, tokenizer.json and vocab.json")
    return vocabulary.with_timestamps(tokens, sizes.vocabulary)


def _config(model: Model, sizes: Sizes, tokens: Sequence[Token], *, tied: bool) -> dict[str, Any]:
    special = vocabulary.ids_of_special(tokens)
    end = special.get("<|endoftext|>")
    activation = model.scalar("decoder/activation", 3)
    if activation not in ACTIVATIONS:
        raise SourceError(f"{model.path}: decoder/activation is {activation}; known are {ACTIVATIONS}")
    heads = {side: model.scalar(f"{side}/num_heads", sizes.d_model // HEAD_SIZE) for side in ("encoder", "decoder")}
    for side, count in heads.items():
        if count <= 0 or sizes.d_model % count:
            raise SourceError(f"{model.path}: {count} {side} heads do not divide the model size {sizes.d_model}")
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": ACTIVATIONS[activation],
        "d_model": sizes.d_model,
        "num_hidden_layers": sizes.encoder_layers,
        "encoder_layers": sizes.encoder_layers,
        "decoder_layers": sizes.decoder_layers,
        "encoder_attention_heads": heads["encoder"],
        "decoder_attention_heads": heads["decoder"],
        "encoder_ffn_dim": sizes.ffn,
        "decoder_ffn_dim": sizes.ffn,
        "num_mel_bins": sizes.mel_bins,
        "max_source_positions": sizes.source_positions,
        "max_target_positions": sizes.target_positions,
        "vocab_size": sizes.vocabulary,
        "scale_embedding": bool(model.scalar("decoder/scale_embeddings", 0)),
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": special.get("<|startoftranscript|>"),
    }


def _generation_config(
    settings: Mapping[str, Any], config: Mapping[str, Any], tokens: Sequence[Token]
) -> dict[str, Any]:
    """Hugging Face's generation settings, from CTranslate2's config.json and the vocabulary.

    `lang_ids` in the file is not used: conversions of English-only models list the ids of the multilingual
    ones, which are one off there. Everything that is not known is left out.
    """
    special = vocabulary.ids_of_special(tokens)
    multilingual = _is_multilingual(special)
    found: dict[str, Any] = {
        "is_multilingual": multilingual,
        "max_length": config["max_target_positions"],
        "max_initial_timestamp_index": 50,  # 1 s: OpenAI's default for the first timestamp of a window
        "alignment_heads": _pairs(settings.get("alignment_heads"), config),
        "suppress_tokens": _ids(settings.get("suppress_ids"), config),
        "begin_suppress_tokens": _ids(settings.get("suppress_ids_begin"), config),
        "decoder_start_token_id": config["decoder_start_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
        "no_timestamps_token_id": special.get("<|notimestamps|>"),
        "prev_sot_token_id": special.get("<|startofprev|>"),
    }
    if multilingual:
        found["task_to_id"] = {task: special[f"<|{task}|>"] for task in ("transcribe", "translate")}
        found["lang_to_id"] = _languages(special)
    return {key: value for key, value in found.items() if value is not None}


def _is_multilingual(special: Mapping[str, int]) -> bool:
    """English-only models keep GPT-2's tokens, where <|endoftext|> is 50256; elsewhere it is one more."""
    return special.get("<|endoftext|>") != 50256 and "<|transcribe|>" in special and "<|translate|>" in special


def _languages(special: Mapping[str, int]) -> dict[str, int]:
    """Whisper's language tokens: those between <|startoftranscript|> and the first of the two tasks."""
    first, last = (
        special.get("<|startoftranscript|>", 0),
        min(special["<|translate|>"], special["<|transcribe|>"]),
    )
    return {token: index for token, index in sorted(special.items(), key=lambda item: item[1]) if first < index < last}


def _ids(value: object, config: Mapping[str, Any]) -> list[int] | None:
    return _list_of(value, lambda item: _is_index(item, config["vocab_size"]))


def _pairs(value: object, config: Mapping[str, Any]) -> list[list[int]] | None:
    limits = (config["decoder_layers"], config["decoder_attention_heads"])
    return _list_of(
        value,
        lambda item: isinstance(item, list) and len(item) == 2 and all(map(_is_index, item, limits)),
    )


def _is_index(item: object, limit: int) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item < limit


def _list_of(value: object, is_valid: Callable[[object], bool]) -> list[Any] | None:
    """The valid entries of a list in the untrusted config.json; None when there are none."""
    return [item for item in value if is_valid(item)] or None if isinstance(value, list) else None
