"""A tiny chat bundle for onnxruntime: two random layers and a byte-level tokenizer, in a few hundred kilobytes."""

from pathlib import Path
from typing import Any

import numpy as np
from bundle_case import manifest_fields

from sottovoce_compiler.families.causal import CausalModel, CausalSpec, Rope
from sottovoce_compiler.lowerings.onnx.causal import CausalLowering
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.graph import WEIGHTS_NAME, WeightFile
from sottovoce_compiler.pack import write_bundle

SPECIAL = ("<pad>", "<s>", "</s>")
CONTEXT = 600
SPEC = CausalSpec(
    **{"family": "qwen3", "layers": 2, "width": 64, "ffn": 96, "heads": 4, "kv_heads": 2, "head_width": 16},
    **{"vocab_size": 300, "context": CONTEXT, "norm_eps": 1e-6, "rope": Rope(16, 10_000.0), "tied": True},
    **{"attention_scale": 0.25, "qk_norm": True},
)


def random_causal(spec: CausalSpec = SPEC, seed: int = 0) -> CausalModel:
    """Weights wide enough that every token of the past changes the logits."""
    queries, keys = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
    shapes: dict[str, tuple[int, ...]] = {
        **{"embed": (spec.vocab_size, spec.width), "q": (queries, spec.width), "k": (keys, spec.width)},
        **{"v": (keys, spec.width), "o": (spec.width, queries), "gate": (spec.ffn, spec.width)},
        **{"up": (spec.ffn, spec.width), "down": (spec.width, spec.ffn)},
        **{"q_norm": (spec.head_width,), "k_norm": (spec.head_width,)},
    }

    def load(role: str, layer: int | None) -> np.ndarray:
        shape = shapes.get(role, (spec.width,))
        draw = np.random.default_rng([seed, *role.encode(), layer or 0]).normal(0, 1, shape)
        scaled = 1 + 0.2 * draw if len(shape) == 1 else draw * 2 / shape[-1] ** 0.5
        return scaled.astype(np.float32)

    return CausalModel(spec, load)


def byte_tokenizer() -> bytes:
    """A tokenizer.json: three special tokens, the bytes, one merge, and an added token that is not special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return str(tokenizer.to_str()).encode()


def chat_fields(spec: CausalSpec = SPEC, **changes: Any) -> dict[str, Any]:
    """The manifest of such a bundle but for its files."""
    model: dict[str, Any] = {"layers": spec.layers, "kv_heads": spec.kv_heads, "head_width": spec.head_width}
    model |= {"vocab_size": spec.vocab_size, "context": CONTEXT}
    model |= {"pooling": spec.pooling} if spec.pooling else {}
    generation = {"bos": 1, "adds_bos": True, "ends": [2]}
    common = {"task": "chat", "family": spec.family, "name": "nano", "audio": {}, "model": model}
    return manifest_fields(**{**common, "generation": generation, **changes})


def make_chat_bundle(
    path: Path,
    precision: str = "fp32",
    model: CausalModel | None = None,
    shape: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Lowers `model` (a random one by default) and writes the bundle to `path`, with some manifest fields changed;
    `shape` stands for the manifest's `model`."""
    model = model or random_causal()
    recipe = causal_recipe(precision, "x86-64", frozenset({"avx512_vnni"}), model.spec)
    staged = path.parent / f"{path.stem}-{WEIGHTS_NAME}"
    with WeightFile(staged) as weights:
        graph = CausalLowering(model, recipe, weights, CONTEXT).graph({})
    files: dict[str, bytes | Path] = {"model.onnx": graph, WEIGHTS_NAME: staged, "tokenizer.json": byte_tokenizer()}
    fields = chat_fields(model.spec, **changes)
    return write_bundle(path, fields if shape is None else {**fields, "model": shape}, files)
