"""The tensors of a Whisper by its configuration: names and shapes, as Hugging Face publishes them.

Finds the contradiction between a config and its weights before any of them is read.
"""

from collections.abc import Iterator

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.sources.checkpoint import Checkpoint

Named = tuple[str, tuple[int, ...]]


def expected_tensors(spec: WhisperSpec) -> Iterator[Named]:
    """Name and shape of every tensor that the lowering reads."""
    width = spec.width
    yield from _linear("model.encoder.conv1", (width, spec.n_mels, 3))
    yield from _linear("model.encoder.conv2", (width, width, 3))
    yield "model.encoder.embed_positions.weight", (spec.n_audio_ctx, width)
    yield "model.decoder.embed_positions.weight", (spec.n_text_ctx, width)
    yield "model.decoder.embed_tokens.weight", (spec.vocab_size, width)
    sides = {"encoder": (spec.encoder_layers, spec.encoder_ffn), "decoder": (spec.decoder_layers, spec.decoder_ffn)}
    for side, (layers, ffn) in sides.items():
        yield from _norm(f"model.{side}.layer_norm", width)
        for i in range(layers):
            layer = f"model.{side}.layers.{i}"
            yield from _linear(f"{layer}.fc1", (ffn, width))
            yield from _linear(f"{layer}.fc2", (width, ffn))
            yield from _norm(f"{layer}.final_layer_norm", width)
            for attention in ("self_attn", "encoder_attn")[: 1 if side == "encoder" else 2]:
                yield from _norm(f"{layer}.{attention}_layer_norm", width)
                yield f"{layer}.{attention}.k_proj.weight", (width, width)
                for part in ("q_proj", "v_proj", "out_proj"):
                    yield from _linear(f"{layer}.{attention}.{part}", (width, width))


def check_tensors(checkpoint: Checkpoint, spec: WhisperSpec) -> None:
    """Raises UnsupportedModelError naming a tensor that config.json contradicts, SourceError for a missing one."""
    for name, shape in expected_tensors(spec):
        if (found := checkpoint.tensors.shape(name)) != shape:
            raise UnsupportedModelError(f"{checkpoint.name}: {name} has shape {found}, by config.json it has {shape}")
    names = set(checkpoint.tensors.names())
    for side, layers in (("encoder", spec.encoder_layers), ("decoder", spec.decoder_layers)):
        if f"model.{side}.layers.{layers}.fc1.weight" in names:
            raise UnsupportedModelError(
                f"{checkpoint.name}: config.json has {side}_layers = {layers}, but the weights have more"
            )


def _linear(name: str, shape: tuple[int, ...]) -> Iterator[Named]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, width: int) -> Iterator[Named]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
