"""Which parts of Whisper should be int8, 4-bit or float: loss, time and bytes of each choice, one part changed at a
time.

    python benchmarks/precision.py --model whisper-base --output benchmarks/results/precision-whisper-base

Loss is the mean KL divergence from the same model in float32, and how often the likeliest token stays the same, over
the tokens that float32 chose for the spoken clips of the built-in set. Times are interleaved, on this machine. The
reasons drawn from it are in docs/decisions.md.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from machine import describe
from numpy.typing import NDArray

from sottovoce.audio import load_audio
from sottovoce.loading import Loaded
from sottovoce.pieces import Piece, PieceDecoder
from sottovoce.types import TranscribeOptions
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.linear import BlockLinear, DynamicInt8Linear, FloatLinear
from sottovoce_compiler.lowerings.onnx.recipe import Recipe, recipe
from sottovoce_compiler.lowerings.onnx.speech_lowering import lower_by_recipe
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.speech_pipeline import common_files, manifest_fields
from sottovoce_targets import load_target

_REPETITIONS = 9
_STEPS = 24
_CLIP_SECONDS = 10

Logs = NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """One choice of precisions and its bundle."""

    name: str
    recipe: Recipe
    bundle: Path


def variants() -> dict[str, Recipe]:
    """Float32, the recipe of int8, and that recipe with one part changed."""
    full = recipe("fp32", "x86-64", frozenset(), 512)
    chosen = recipe("int8", "x86-64", frozenset({"avx2"}), 512)
    eight, four, rows = BlockLinear(8, 128), BlockLinear(4, 32), DynamicInt8Linear()
    return {
        "float32": full,
        "int8 (the recipe)": chosen,
        "encoder float32": replace(chosen, encoder=FloatLinear()),
        "encoder 127 levels": replace(chosen, encoder=rows),
        "encoder int8 in blocks": replace(chosen, encoder=eight),
        "encoder int4 in blocks": replace(chosen, encoder=four),
        "decoder float32": replace(chosen, decoder=FloatLinear()),
        "decoder int8 a channel": replace(chosen, decoder=rows),
        "decoder int4": replace(chosen, decoder=four),
        "decoder int4 in 128": replace(chosen, decoder=BlockLinear(4, 128)),
        "head float32": replace(chosen, head=FloatLinear()),
        "head int8 a channel": replace(chosen, head=rows),
        "head int4": replace(chosen, head=four),
        "decoder and head int4": replace(chosen, decoder=four, head=four),
    }


def build(source: str, folder: Path) -> list[Variant]:
    """A bundle for every variant."""
    checkpoint = resolve(source)
    spec = whisper_spec(checkpoint)
    out = []
    for number, (name, chosen) in enumerate(variants().items()):
        work = folder / str(number)
        work.mkdir()
        request = Request(source, load_target("linux-x86-64"), work, {}, "int8")
        lowered = lower_by_recipe(checkpoint, spec, chosen, request.target, work)
        fields = manifest_fields(request, checkpoint, spec, lowered)
        bundle = write_bundle(folder / f"{number}.svb", fields, {**lowered.files, **common_files(checkpoint)})
        out.append(Variant(name, chosen, bundle))
    return out


def choose(loaded: Loaded, clips: Sequence[NDArray[np.float32]]) -> list[tuple[int, ...]]:
    """The tokens that a model chooses for clips, greedily and without timestamps."""
    options = TranscribeOptions(language="en", temperature=(0.0,), without_timestamps=True)
    decoder = PieceDecoder(loaded.engine, loaded.tokens, loaded.table, options)
    found = [decoder.decode(decoder.begin([Piece(clip, 0)]), ["en"])[0] for clip in clips]
    return [tuple(token for segment in segments for token in segment.tokens) for segments in found]


def log_shares(loaded: Loaded, clip: NDArray[np.float32], tokens: Sequence[int]) -> Logs:
    """Log probabilities (tokens + 1, vocabulary) after each of `tokens`, fed one by one as a device does."""
    prompt = loaded.tokens.prompt("en", "transcribe", timestamps=False)
    batch = loaded.engine.start([Piece(clip, 0).padded()], len(prompt) + len(tokens) + 1)
    logits = [batch.run(np.array([prompt]), [len(prompt) - 1])[0, 0].astype(np.float64)]
    logits += [batch.run(np.array([[token]]), [0])[0, 0].astype(np.float64) for token in tokens]
    scores = np.stack(logits)
    top = scores.max(axis=-1, keepdims=True)
    shares: Logs = scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    return shares


def loss(
    variant: Variant, wanted: Sequence[Logs], clips: Sequence[NDArray[np.float32]], texts: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """Mean KL divergence in nats a token, and the share of tokens whose likeliest is the same."""
    loaded = Loaded.open(variant.bundle, 2)
    divergences, same = [], []
    for clip, tokens, full in zip(clips, texts, wanted, strict=True):
        found = log_shares(loaded, clip, tokens)
        divergences += list((np.exp(full) * (full - found)).sum(axis=-1))
        same += list(full.argmax(axis=-1) == found.argmax(axis=-1))
    return float(np.mean(divergences)), float(np.mean(same))


def times(bundles: Sequence[Path], clip: NDArray[np.float32], threads: int) -> list[tuple[float, float]]:
    """Milliseconds to encode the clip and for one token, medians of runs that take turns."""
    loaded = [Loaded.open(bundle, threads) for bundle in bundles]
    encode: list[list[float]] = [[] for _ in bundles]
    step: list[list[float]] = [[] for _ in bundles]
    for _ in range(_REPETITIONS):
        for at, one in enumerate(loaded):
            begun = time.perf_counter()
            batch = one.engine.start([clip], _STEPS + 4)
            encode[at].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            for token in range(_STEPS):
                batch.run(np.array([[1000 + token]]), [0])
            step[at].append((time.perf_counter() - begun) / _STEPS)
    return [(1e3 * statistics.median(a), 1e3 * statistics.median(b)) for a, b in zip(encode, step, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    clips = [load_audio(clip.file) for clip in builtin_set().clips if clip.is_speech]
    with tempfile.TemporaryDirectory() as work:
        made = build(args.model, Path(work))
        source = Loaded.open(made[0].bundle, args.threads)
        texts = choose(source, clips)
        full = [log_shares(source, clip, tokens) for clip, tokens in zip(clips, texts, strict=True)]
        losses = [loss(one, full, clips, texts) for one in made]
        longest = max(clips, key=len)[: _CLIP_SECONDS * 16_000]
        measured = times([one.bundle for one in made], longest, args.threads)
        sizes = [one.bundle.stat().st_size / 1e6 for one in made]
    lines = [
        f"# {args.model}: what each part's precision costs",
        "",
        f"{sum(map(len, texts))} tokens of {len(clips)} clips; {describe()['cpu']}, {args.threads} threads; "
        f"encoder of {_CLIP_SECONDS} s.",
        "",
        "| variant | KL, nats a token | same likeliest | encoder, ms | token, ms | MB |",
        "|---|---|---|---|---|---|",
    ]
    for one, (divergence, same), (encode, token), size in zip(made, losses, measured, sizes, strict=True):
        lines.append(f"| {one.name} | {divergence:.4f} | {same:.1%} | {encode:.1f} | {token:.2f} | {size:.1f} |")
    args.output.with_name(f"{args.output.name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
