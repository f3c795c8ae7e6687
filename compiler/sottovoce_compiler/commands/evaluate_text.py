"""`sottovoce evaluate` for language models: perplexity on text, and what a packed one lost against its source.

Knows which models these are and what is printed of them. How they are compared is in `report.language`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.bundle import open_bundle
from sottovoce.chat.chat import Chat
from sottovoce.chat.loading import LoadedChat, is_gguf
from sottovoce.errors import BundleError, InputError
from sottovoce_compiler.commands.stages import progress_bar
from sottovoce_compiler.families import language_model
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.report.chat_measure import (
    THREADS,
    artifact_logits,
    artifact_tokens,
    compared,
    source_tokenizer,
)
from sottovoce_compiler.report.language import LanguageScores, perplexity
from sottovoce_compiler.report.table import Table, show
from sottovoce_compiler.report.texts import TextSet, builtin_text, read_texts
from sottovoce_compiler.sources import Checkpoint, SourceError, resolve
from sottovoce_compiler.tokens import chat_tokens

NO_SOURCE = "none"  # for --against
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class TextEvaluation:
    """`scores` against the model called `against`, where there is one to compare with."""

    texts: TextSet
    tokens: int
    perplexity: float
    against: str | None = None
    scores: LanguageScores | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; what was not compared is null."""
        return {
            "dataset": {"name": self.texts.name, "sha256": self.texts.sha256, "passages": len(self.texts.passages)},
            "tokens": self.tokens,
            "perplexity": round(self.perplexity, 4),
            "against": self.against,
            **dict.fromkeys(("source_perplexity", "kl", "kl_p99", "top1")),
            **({} if self.scores is None else self.scores.to_json()),
        }

    def table(self, model: str) -> Table:
        """What was measured; with the source's beside it where there is one."""
        rows = [("tokens scored", str(self.tokens)), ("perplexity", f"{self.perplexity:.3f}")]
        title = f"{model} on {self.texts.name}"
        if (scores := self.scores) is None:
            return Table(title, ("", "model"), tuple(rows))
        sources = ("", f"{scores.source_perplexity:.3f}", "0", "0", "100.0%")
        rows += [
            ("KL from the source, mean", f"{scores.kl:.4g}"),
            ("KL from the source, 99th percentile", f"{scores.kl_p99:.4g}"),
            ("same likeliest token", f"{scores.top1:.1%}"),
        ]
        beside = tuple((*row, source) for row, source in zip(rows, sources, strict=True))
        return Table(title, ("", "model", str(self.against)), beside)


def is_artifact(model: str) -> bool:
    """Whether the argument means a packed language model: a chat bundle, or a GGUF file."""
    path = Path(model)
    if is_gguf(path):
        return True
    try:
        return path.exists() and open_bundle(path).manifest.task == "chat"
    except BundleError:
        return False


def run_text(args: argparse.Namespace, source: Checkpoint | None = None) -> int:
    """Prints what is measured of the packed model that `args` name, or of `source`. Raises InputError for options of
    speech and for text that is too short to measure on."""
    for option in ("stream", "set", "threads", "plot"):
        if getattr(args, option):
            raise InputError(f"--{option} is about speech, and {args.model} is a language model")
    if source is not None and args.against is not None:
        raise InputError(f"--against is what a packed model is compared with, and {args.model} is a source")
    texts = builtin_text() if args.data is None else read_texts(args.data)
    with progress_bar("reading text", 1) as progress:
        if source is not None:
            found = evaluate_source(source, texts, progress)
        else:
            found = evaluate_artifact(args.model, texts, args.against, progress)
    if args.json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        show([found.table(args.model)], sys.stdout)
    return 0


def evaluate_source(checkpoint: Checkpoint, texts: TextSet, progress: Progress) -> TextEvaluation:
    """A source at full precision, in torch."""
    spec = language_model(checkpoint).spec
    tokens, tokenizer = chat_tokens(checkpoint, spec), source_tokenizer(checkpoint)
    passages = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.passages]
    logits = CausalSource(checkpoint).logits
    bos = tokens.bos if tokens.adds_bos else None
    return _alone(texts, perplexity(logits, passages, bos, progress, context=spec.context))


def evaluate_artifact(model: str, texts: TextSet, against: str | None, progress: Progress) -> TextEvaluation:
    """A packed model as it is loaded, against the source that is given, or the one that a bundle names."""
    with Chat(model, threads=THREADS) as chat:
        chat.load()
        ready = chat._ready
        source = _source_of(ready, against)
        if source is None:
            engine = ready.engine
            passages = [artifact_tokens(ready, text) for text in texts.passages]
            bos = engine.vocabulary.bos if engine.vocabulary.adds_bos else None
            logits = artifact_logits(ready)
            return _alone(texts, perplexity(logits, passages, bos, progress, context=engine.context))
        scores = compared(source, source_tokenizer(source), ready, texts, progress)
    if scores is None:
        raise _too_short(texts)
    return TextEvaluation(texts, scores.tokens, scores.perplexity, source.name, scores)


def _source_of(ready: LoadedChat, against: str | None) -> Checkpoint | None:
    """The model to compare with; None, and a line on stderr that says why, where it is not at hand."""
    if against is not None:
        return None if against == NO_SOURCE else resolve(against)
    if ready.bundle is None:
        _only_perplexity("a GGUF file does not say what it was made from")
        return None
    stated = ready.bundle.manifest.raw["source"]
    try:
        # What a bundle names is not fetched unasked: it may be large.
        found = resolve(str(stated.get("spec")), offline=True)
    except SourceError as error:
        _only_perplexity(str(error))
        return None
    if found.sha256 != stated.get("sha256"):
        _only_perplexity(f"{found.spec} is not what the bundle was made from")
        return None
    return found


def _only_perplexity(why: str) -> None:
    print(f"sottovoce: not compared with its source: {why}; give one with --against", file=sys.stderr)


def _alone(texts: TextSet, found: tuple[int, float] | None) -> TextEvaluation:
    if found is None:
        raise _too_short(texts)
    return TextEvaluation(texts, *found)


def _too_short(texts: TextSet) -> InputError:
    return InputError(f"{texts.name} is too short to measure anything on; a paragraph is the least")
