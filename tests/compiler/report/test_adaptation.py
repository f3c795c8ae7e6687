"""What an adapter is said to have done, on a random Whisper and a random language model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_adapter_case import checkpoint, lora_folder

from sottovoce_compiler.adapter import Adapted, with_adapter
from sottovoce_compiler.families import language_model
from sottovoce_compiler.report.adaptation import speech_adaptation, text_adaptation
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import evaluate
from sottovoce_compiler.report.hypothesis import Hypothesis
from sottovoce_compiler.report.language import LanguageScores
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.peft import open_adapter
from sottovoce_compiler.tokens import chat_tokens

from ..chat_compile_case import TEXT, chat_folder
from ..lora_case import save_lora


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    file = tmp_path / "clip.wav"
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32), 16_000)
    return Dataset("clips", (Clip("clip.wav", file, "the best of times", "en", 1.0),))


def test_a_whispers_base_adapted_and_bundle_are_measured_on_the_same_clips(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    base = replace(checkpoint(), sha256={"model.safetensors": "c" * 64})
    adapter = open_adapter(lora_folder(tmp_path / "lora"))

    def said(text: str) -> object:
        return evaluate(lambda clip: Hypothesis(text, "en", 1.0), data)

    found = speech_adaptation(
        Adapted(base, adapter),
        with_adapter(base, adapter),
        data,
        said("the best of times"),  # type: ignore[arg-type]
        said("the best of"),  # type: ignore[arg-type]
    )
    section = found.to_json()
    assert section["name"] == "lora" and section["matrices"] == len(adapter.pairs) and section["kl"] > 0.001
    assert section["wer"]["adapted"] == 0 and section["wer"]["bundle"] == 0.25
    assert section["wer"]["base"] >= 0.75, "a random model says none of it"
    assert "cer" not in section and found.table().rows[0][0] == "wer"


def test_an_adapter_that_changes_nothing_is_refused(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_CACHE", str(tmp_path / "cache"))
    base = replace(checkpoint(), sha256={"model.safetensors": "d" * 64})
    adapter = open_adapter(lora_folder(tmp_path / "lora"))
    nothing = evaluate(lambda clip: Hypothesis("", "en", 1.0), data)
    with pytest.raises(SourceError, match="computes what it computes without"):
        speech_adaptation(Adapted(base, adapter), base, data, nothing, nothing)


def test_a_language_models_perplexities_are_those_of_base_adapted_and_bundle(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from sottovoce_compiler.sources import resolve

    folder = chat_folder(tmp_path / "base")
    save_lora(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "lora")
    base, adapter = resolve(str(folder)), open_adapter(tmp_path / "lora")
    texts = TextSet("text", (TEXT,))
    scores = LanguageScores(10, 1.0, 123.0, 0.0, 0.0, 1.0)
    adapted = with_adapter(base, adapter)
    section = text_adaptation(Adapted(base, adapter), adapted, texts, scores).to_json()
    assert section["kl"] > 0.001 and section["perplexity"]["bundle"] == 123
    assert section["perplexity"]["base"] != section["perplexity"]["adapted"]
    short = text_adaptation(Adapted(base, adapter), adapted, TextSet("short", ("Hi",)), None)
    assert short.figures == () and short.kl > 0.001, "what is too short to score is no proof that nothing changed"
    with pytest.raises(SourceError, match="computes what it computes without"):
        text_adaptation(Adapted(base, adapter), base, texts, scores)


def test_perplexities_are_of_the_windows_that_a_bundle_is_measured_on(tmp_path: Path) -> None:
    """A model whose texts begin with a token of their own: the same number as the report has for the source."""
    from transformers import AutoModelForCausalLM

    from sottovoce_compiler.report.causal_source import CausalSource
    from sottovoce_compiler.report.chat_measure import source_tokenizer
    from sottovoce_compiler.report.language import perplexity
    from sottovoce_compiler.sources import resolve

    folder = chat_folder(tmp_path / "base")
    save_lora(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "lora")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "add_bos_token": True}))
    base, adapter = resolve(str(folder)), open_adapter(tmp_path / "lora")
    tokens = chat_tokens(base, language_model(base).spec)
    assert tokens.adds_bos and tokens.bos is not None
    adapted = with_adapter(base, adapter)
    passages = [source_tokenizer(base).encode(TEXT, add_special_tokens=False).ids]
    wanted = perplexity(CausalSource(adapted).logits, passages, tokens.bos)
    found = text_adaptation(Adapted(base, adapter), adapted, TextSet("text", (TEXT,)), None)
    assert wanted is not None and found.figures[0].adapted == pytest.approx(wanted[1])
