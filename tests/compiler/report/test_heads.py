from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.alignment import token_times
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.report import heads
from sottovoce_compiler.report.attention import cross_attention, source_prompt
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.heads import MOST_HEADS, best_heads, boundary_scores, measured_heads
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import load_samples
from sottovoce_compiler.sources import resolve

from .source_case import checkpoint, noise

# Three phrases of 2, 3 and 1 tokens over 300 frames; where each token is said.
LENGTHS, ENDS = [2, 3, 1], [2.0, 5.0, 6.0]
SAID = [20, 60, 110, 160, 210, 270]


def attention_of(look: list[int], spread: int = 5) -> np.ndarray:
    """(tokens, frames): each row looks at one frame and its neighbours."""
    frames = np.arange(300)
    rows = np.stack([np.exp(-(((frames - at) / spread) ** 2)) for at in look])
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def test_a_head_that_looks_where_the_token_is_said_scores_one_and_the_others_nothing() -> None:
    follows = attention_of(SAID)
    sharp_but_late = attention_of([10, *SAID[:-1]], spread=1)  # at the word just said
    stuck = attention_of([30] * 6)
    everywhere = np.full((6, 300), 1 / 300, np.float32)
    made = np.stack([follows, sharp_but_late, stuck, everywhere]).reshape(2, 2, 6, 300)
    scores = boundary_scores(made, LENGTHS, ENDS)
    assert len(scores) == 2, "the first phrase has no boundary before it"
    np.testing.assert_allclose(np.mean(scores, axis=0), [[1, 0], [0, (150 + 50) / 600]], atol=2e-3)


def test_the_best_are_chosen_in_order_of_layer_and_ties_go_to_the_first() -> None:
    scores = np.zeros((4, 6), np.float32)
    scores[3, 5], scores[1, 2] = 0.9, 0.8
    chosen = best_heads(scores)
    assert len(chosen) == MOST_HEADS
    assert chosen == ((0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 2), (3, 5))
    noisy = scores + np.linspace(0, 4e-5, 24, dtype=np.float32).reshape(4, 6)
    assert best_heads(noisy) == chosen, "what is below rounding decides nothing"


def test_a_model_with_few_heads_keeps_them_all() -> None:
    assert best_heads(np.zeros((1, 2), np.float32)) == ((0, 0), (0, 1))


@pytest.fixture
def phrases(tmp_path: Path) -> Dataset:
    clips = []
    for name, seconds, text in (("a", 0.6, "ab"), ("b", 0.9, "cd"), ("c", 0.4, "e"), ("n", 1.0, "")):
        soundfile.write(tmp_path / name, noise(seconds, seed=ord(name)), 16_000, format="WAV")
        clips.append(Clip(name, tmp_path / name, text, "en" if text else None, seconds))
    return Dataset("phrases", tuple(clips))


@pytest.mark.parametrize("multilingual", [True, False])
def test_any_whisper_can_be_measured_and_gives_the_same_heads_again(phrases: Dataset, multilingual: bool) -> None:
    model = checkpoint(multilingual=multilingual)
    found = measured_heads(model, phrases)
    assert found == measured_heads(model, phrases)
    assert found is not None and set(found) <= {(layer, head) for layer in range(2) for head in range(2)}


def test_only_speech_is_used_and_a_window_of_one_clip_tells_nothing(phrases: Dataset) -> None:
    assert measured_heads(checkpoint(), Dataset("one", phrases.clips[:1])) is None
    assert measured_heads(checkpoint(), Dataset("none", phrases.clips[3:])) is None
    together = Dataset("two", (phrases.clips[0], phrases.clips[3], phrases.clips[1]))
    assert measured_heads(checkpoint(), together) == measured_heads(
        checkpoint(), Dataset("two", (phrases.clips[0], phrases.clips[1]))
    )


def test_text_that_does_not_fit_the_models_context_is_left_out(phrases: Dataset) -> None:
    long = tuple(replace(clip, text="x" * 20) for clip in phrases.clips[:2])
    assert measured_heads(checkpoint(), Dataset("long", long)) is None


@pytest.mark.weights
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_heads_found_in_a_real_model_are_largely_the_published_ones_and_tell_much_the_same_times(name: str) -> None:
    """Not all of them, nor need it be: against the onsets of speech, those found were as near or nearer (heads.py)."""
    source = resolve(name)
    spec = whisper_spec(source)
    found = measured_heads(source, builtin_set())
    assert found is not None and len(found) == MOST_HEADS
    assert len(set(found) & set(spec.alignment_heads)) >= 5
    parts = SourceModel(source).load()
    clip = builtin_set().clips[4]
    samples = load_samples(clip.file)
    table = heads.TokenTable([t.encode() if isinstance(t, str) else t for t in source.vocabulary], spec.tokens.end)
    prompt = source_prompt(parts)
    attention = cross_attention(parts, samples, [*prompt, *table.encode(" " + clip.text)])
    attention = attention[:, :, len(prompt) - 1 :]

    def times(chosen: heads.Heads) -> np.ndarray:
        return token_times(np.stack([attention[layer, head] for layer, head in chosen]), samples.size // 320)

    assert np.abs(times(found) - times(spec.alignment_heads)).mean() < 0.12
