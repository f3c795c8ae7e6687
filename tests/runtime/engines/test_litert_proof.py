"""An interpreter that is no longer maintained answers where the golden cases hold, and nowhere else."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from litert_case import make_chat_bundle, make_speech_bundle
from wave_case import wave

from sottovoce.bundle import open_bundle
from sottovoce.decoding.grammar import Tokens
from sottovoce.engines.litert import LiteRtWhisper
from sottovoce.engines.litert_chat import LiteRtChat
from sottovoce.engines.litert_model import Package, find_package
from sottovoce.errors import BundleError, EngineError
from sottovoce.golden import score
from sottovoce.loading import Loaded
from sottovoce.tokens import TokenTable, unpack_tokens

SOUND = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
SAID, PROMPT, CHOSEN = (300, 4000, 27), (5, 9, 7), (11, 40, 6)


@contextmanager
def maintained() -> Iterator[None]:
    """As it is, whatever the tests pretend."""
    places = [patch(f"sottovoce.engines.{module}.find_package", find_package) for module in ("litert", "litert_chat")]
    with places[0], places[1]:
        yield


def spoken(folder: Path, off: float = 0.0) -> Path:
    """A speech bundle whose golden case is `off` what its engine computes."""
    bundle = open_bundle(make_speech_bundle(folder / "draft.svb"))
    engine = LiteRtWhisper(bundle, 1)
    with maintained():
        engine.load()
    tokens = Tokens.of(bundle.manifest.generation, engine.vocab_size)
    table = TokenTable(unpack_tokens(bundle.read("tokens.bin")), tokens.end)
    logprobs, _ = score(Loaded(bundle, tokens, table, engine, None, {}), SOUND, "en", SAID)
    case = {"audio": "golden/0.wav", "language": "en", "text": "", "tokens": SAID, "logprobs": list(logprobs + off)}
    files = {"golden/0.json": json.dumps(case).encode(), "golden/0.wav": wave(SOUND)}
    return make_speech_bundle(folder / "made.svb", files=files)


def written(folder: Path, off: float = 0.0) -> Path:
    """The same for chat."""
    engine = LiteRtChat(open_bundle(make_chat_bundle(folder / "draft.svb")), 1)
    with maintained():
        engine.load()
    logits = engine.evaluate([*PROMPT, *CHOSEN[:-1]], outputs=len(CHOSEN)).astype(np.float64)
    shares = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    logprobs = shares[np.arange(len(CHOSEN)), np.array(CHOSEN)] + off
    case = {"prompt": PROMPT, "text": "", "tokens": CHOSEN, "logprobs": list(logprobs)}
    files = {"golden/0.json": json.dumps(case).encode(), "golden/template.json": b"{}"}
    return make_chat_bundle(folder / "made.svb", files=files)


@pytest.fixture(autouse=True)
def an_old_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the one here were no longer maintained; what a random model is fed need not be what it finds likeliest."""
    monkeypatch.setattr("sottovoce.golden.MIN_SAME_CHOICE", 0.0)
    package = Package("tflite-runtime", "ai_edge_litert", "2.14.0")
    for module in ("litert", "litert_chat"):
        monkeypatch.setattr(f"sottovoce.engines.{module}.find_package", lambda: package)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("chat"))


def test_an_old_one_that_computes_the_same_may_answer(speech: Path, chat: Path) -> None:
    transcriber, chatter = LiteRtWhisper(open_bundle(speech), 1), LiteRtChat(open_bundle(chat), 1)
    transcriber.load()
    chatter.load()
    assert chatter.length == 0
    assert np.isfinite(chatter.evaluate([5])).all()


@pytest.mark.parametrize("make", [spoken, written])
def test_one_that_computes_something_else_may_not(make: Callable[[Path, float], Path], tmp_path: Path) -> None:
    bundle = open_bundle(make(tmp_path, 0.2))
    engine = LiteRtWhisper(bundle, 1) if make is spoken else LiteRtChat(bundle, 1)
    for _ in range(2):  # and not at the second try either
        with pytest.raises(EngineError, match=r"tflite-runtime 2\.14\.0 may not answer, golden/0") as error:
            engine.load()
    assert "differ by 0.200 on average" in str(error.value) and "pip install ai-edge-litert" in str(error.value)


@pytest.mark.parametrize("make", [make_speech_bundle, make_chat_bundle])
def test_without_golden_cases_nothing_shows_that_it_may(make: Callable[[Path], Path], tmp_path: Path) -> None:
    bundle = open_bundle(make(tmp_path / "b.svb"))
    engine = LiteRtWhisper(bundle, 1) if make is make_speech_bundle else LiteRtChat(bundle, 1)
    with pytest.raises(EngineError, match="no golden cases"):
        engine.load()


@pytest.mark.parametrize("content", [b"[]", b"{", b"{}"])
def test_what_is_no_case_is_named(tmp_path: Path, content: bytes) -> None:
    bundle = make_chat_bundle(tmp_path / "b.svb", files={"golden/0.json": content})
    with pytest.raises(BundleError, match=r"golden/0\.json is not a golden case"):
        LiteRtChat(open_bundle(bundle), 1).load()
