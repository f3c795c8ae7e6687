"""What an adapter did to its base, and what of that is left in the bundle: the same measure three times.

Knows evaluations and distributions, and how to compare them. An adapter under which the source computes exactly what
its base does is an error: it was trained for something else, or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.adapter import Adapted
from sottovoce_compiler.families import language_model
from sottovoce_compiler.report.attention import forced_logits
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.report.chat_measure import source_tokenizer
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import Evaluation
from sottovoce_compiler.report.language import LanguageScores, compare, log_softmax
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import evaluate_source, load_samples
from sottovoce_compiler.report.table import Table
from sottovoce_compiler.report.texts import TextSet, builtin_text
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.tokens import chat_tokens

_PROBES = 2  # recordings on which the distributions are compared
_WINDOW_SECONDS = 29.0

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of the base, of the base with the adapter in torch, and of the bundle, on the same data."""

    measure: str
    base: float | None
    adapted: float | None
    bundle: float | None

    def to_json(self) -> dict[str, float | None]:
        """JSON values, rounded to what the data can tell."""
        values = {"base": self.base, "adapted": self.adapted, "bundle": self.bundle}
        return {name: None if value is None else round(value, 4) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Adaptation:
    """An adapter on its base. `kl` is the mean KL divergence, in nats, of the base's next-token distribution from the
    adapted one's, in torch."""

    adapter: str
    matrices: int
    data: str
    kl: float
    figures: tuple[Figure, ...]

    def to_json(self) -> dict[str, Any]:
        """The report's `adapter`."""
        facts = {"name": self.adapter, "matrices": self.matrices, "data": self.data, "kl": float(f"{self.kl:.4g}")}
        return facts | {figure.measure: figure.to_json() for figure in self.figures}

    def table(self) -> Table:
        """For the screen."""
        rows = [(figure.measure, *map(_shown, (figure.base, figure.adapted, figure.bundle))) for figure in self.figures]
        title = f"{self.adapter} on {self.data}: changes {self.matrices} matrices, {self.kl:.3g} nats a token"
        return Table(title, ("", "base", "with the adapter", "bundle"), tuple(rows))


def speech_adaptation(
    adapted: Adapted, checkpoint: Checkpoint, dataset: Dataset, source: Evaluation, artifact: Evaluation
) -> Adaptation:
    """`checkpoint` is the base with the adapter, `source` and `artifact` its evaluation and the bundle's.

    Raises SourceError where the adapter changes nothing.
    """
    base = evaluate_source(adapted.base, dataset)
    scores = [evaluation.scores for evaluation in (base, source, artifact)]
    figures = [Figure("wer", *(one.wer for one in scores)), Figure("cer", *(one.cer for one in scores))]
    return Adaptation(
        adapted.adapter.name,
        len(adapted.adapter.pairs),
        dataset.name,
        _changed(adapted, _speech_kl(adapted.base, checkpoint, dataset)),
        tuple(figure for figure in figures if figure.base is not None),
    )


def text_adaptation(
    adapted: Adapted, checkpoint: Checkpoint, texts: TextSet, scores: LanguageScores | None
) -> Adaptation:
    """`checkpoint` is the base with the adapter, `scores` the bundle's on the same texts.

    Raises SourceError where the adapter changes nothing.
    """
    found = _compared(adapted, checkpoint, texts)
    # What is too short to score says nothing of the adapter either: whether it does something is then seen elsewhere.
    probe = found or _compared(adapted, checkpoint, builtin_text())
    figures: tuple[Figure, ...] = ()
    if found is not None:
        bundle = None if scores is None else scores.perplexity
        figures = (Figure("perplexity", found.perplexity, found.source_perplexity, bundle),)
    return Adaptation(
        adapted.adapter.name,
        len(adapted.adapter.pairs),
        texts.name,
        _changed(adapted, 0.0 if probe is None else probe.kl),
        figures,
    )


def _compared(adapted: Adapted, checkpoint: Checkpoint, texts: TextSet) -> LanguageScores | None:
    """The base held against the base with the adapter, on the windows that the bundle is measured on."""
    tokenizer = source_tokenizer(checkpoint)
    passages = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.passages]
    tokens = chat_tokens(checkpoint, language_model(checkpoint).spec)
    bos = tokens.bos if tokens.adds_bos else None
    return compare(CausalSource(checkpoint).logits, CausalSource(adapted.base).logits, passages, bos)


def _changed(adapted: Adapted, kl: float) -> float:
    if kl == 0:
        raise SourceError(
            f"{adapted.adapter.folder}: with this adapter {adapted.base.name} computes what it computes without; "
            "it was not trained, or for another model"
        )
    return kl


def _speech_kl(base: Checkpoint, adapted: Checkpoint, dataset: Dataset) -> float:
    """Over the tokens that the base says of a few recordings, each fed what it said before."""
    spoken = _spoken(dataset) or _spoken(builtin_set())
    clips = [load_samples(clip.file) for clip in spoken[:_PROBES]]
    languages = [clip.language for clip in spoken[:_PROBES]]
    model = SourceModel(base)
    said = model.transcribe(clips, languages)
    texts = [list(one.tokens) for one in said]
    before = _logits(model, clips, texts)
    after = _logits(SourceModel(adapted), clips, texts)
    rows = [_kl(one, other) for one, other in zip(after, before, strict=True)]
    return float(np.concatenate(rows).mean()) if rows else 0.0


def _spoken(dataset: Dataset) -> list[Clip]:
    return [clip for clip in dataset.clips if clip.is_speech and clip.seconds <= _WINDOW_SECONDS]


def _logits(model: SourceModel, clips: Sequence[Float], texts: Sequence[Sequence[int]]) -> list[Float]:
    parts = model.load()
    return [forced_logits(parts, samples, text) for samples, text in zip(clips, texts, strict=True)]


def _kl(true: Float, found: Float) -> NDArray[np.float64]:
    """KL(true || found) of each row of logits, in nats."""
    p, q = log_softmax(true), log_softmax(found)
    divergence: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return np.maximum(divergence, 0)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def adapter_section(adaptation: Adaptation | None) -> Mapping[str, Any]:
    """What a report has of it: nothing where nothing was adapted."""
    return {} if adaptation is None else {"adapter": adaptation.to_json()}
