"""LiteRT's chat engine over a tiny random bundle, beside ONNX Runtime's over the same weights."""

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chat_bundle_case
import numpy as np
import pytest
from chat_bundle_case import CONTEXT, SPEC, random_causal
from litert_case import make_chat_bundle

from sottovoce.bundle import open_bundle
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.litert_chat import PART, LiteRtChat, Sight
from sottovoce.engines.onnxruntime_chat import OnnxChat
from sottovoce.errors import BundleError, EngineError, InputError

# fp32 by other kernels, in another order; logits here are of size 1 to 10.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 5e-4}
LONG = [int(token) for token in np.random.default_rng(0).integers(3, 300, 4 * PART + 40)]
WINDOWED = replace(SPEC, family="gemma3", sliding_window=150, sliding_layers=(True, False))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_bundle(tmp_path_factory.mktemp("chat") / "nano.svb")


@pytest.fixture
def engine(bundle: Path) -> Iterator[LiteRtChat]:
    engine = LiteRtChat(open_bundle(bundle), 1)
    yield engine
    engine.close()


def of_reference(folder: Path, tokens: list[int], model: Any = None) -> np.ndarray:
    """All logits by the other engine."""
    other = OnnxChat(open_bundle(chat_bundle_case.make_chat_bundle(folder / "onnx.svb", model=model)), 1)
    return other.evaluate(tokens, outputs=len(tokens))


def test_it_is_a_chat_engine(engine: LiteRtChat) -> None:
    checked: ChatEngine = engine
    assert (checked.context, checked.length, checked.vocabulary.size) == (CONTEXT, 0, SPEC.vocab_size)
    engine.load()
    assert checked.name.startswith("LiteRT (ai-edge-litert ")


def test_a_long_prompt_in_parts_gives_the_logits_of_the_other_engine(engine: LiteRtChat, tmp_path: Path) -> None:
    found = engine.evaluate(LONG, outputs=len(LONG))
    assert found.shape == (len(LONG), SPEC.vocab_size) and found.dtype == np.float32
    np.testing.assert_allclose(found, of_reference(tmp_path, LONG), **CLOSE)
    assert engine.length == len(LONG)


@pytest.mark.parametrize("sizes", [[1] * 30, [7, 1, 1, 20, 1]])
def test_steps_and_parts_give_the_logits_of_the_prompt(engine: LiteRtChat, sizes: list[int]) -> None:
    wanted = engine.evaluate(LONG[:30], outputs=30)
    engine.truncate(0)
    parts = [part.tolist() for part in np.split(np.array(LONG[:30]), np.cumsum(sizes)[:-1])]
    found = np.concatenate([engine.evaluate(part, outputs=len(part)).copy() for part in parts])
    np.testing.assert_allclose(found, wanted, **CLOSE)


@pytest.mark.parametrize("outputs", [1, 7, PART, PART + 3])
def test_logits_come_for_the_last_positions(engine: LiteRtChat, outputs: int) -> None:
    wanted = engine.evaluate(LONG[:300], outputs=300)[-outputs:]
    engine.truncate(0)
    np.testing.assert_allclose(engine.evaluate(LONG[:300], outputs=outputs), wanted, **CLOSE)


def test_a_layer_with_a_window_sees_no_further(tmp_path: Path) -> None:
    model = random_causal(WINDOWED)
    engine = LiteRtChat(open_bundle(make_chat_bundle(tmp_path / "w.svb", model=model)), 1)
    wanted = of_reference(tmp_path, LONG[:400], model)
    np.testing.assert_allclose(engine.evaluate(LONG[:400], outputs=400), wanted, **CLOSE)
    engine.truncate(350)
    steps = np.concatenate([engine.evaluate([token]).copy() for token in LONG[350:400]])
    np.testing.assert_allclose(steps, wanted[350:], **CLOSE)


def test_windows_count_a_position_itself() -> None:
    sight = Sight(group=2, window=3)
    found = sight.biases(length=4, tokens=2, capacity=8)
    past, new = (found[f"{kind}_bias_local"][0, 0] == 0 for kind in ("past", "new"))
    assert [np.flatnonzero(row).tolist() for row in past] == [[2, 3], [3]] * 2
    assert [np.flatnonzero(row).tolist() for row in new] == [[0], [0, 1]] * 2
    assert found["past_bias"].shape == (1, 1, 1, 8) and found["new_bias"].shape == (1, 1, 4, 2)


def test_after_truncating_the_rest_is_forgotten(engine: LiteRtChat) -> None:
    engine.evaluate(LONG[:30])
    wanted = engine.evaluate(LONG[30:33], outputs=2)
    engine.evaluate(LONG[100:150])
    engine.truncate(30)
    np.testing.assert_array_equal(engine.evaluate(LONG[30:33], outputs=2), wanted)
    engine.truncate(1000)
    assert engine.length == 33, "there is nothing more to forget"
    with pytest.raises(InputError, match="-1 positions"):
        engine.truncate(-1)


def test_the_room_grows_with_the_conversation_and_keeps_it(bundle: Path) -> None:
    small, large = (LiteRtChat(open_bundle(bundle), 1) for _ in range(2))
    large.evaluate(LONG)  # grown at once
    large.truncate(0)
    for start in range(0, len(LONG), 137):
        part = LONG[start : start + 137]
        found = small.evaluate(part, outputs=len(part))
        np.testing.assert_allclose(found, large.evaluate(part, outputs=len(part)), **CLOSE)
    assert small.length == len(LONG)


def test_a_saved_sequence_goes_on_as_it_would_have(engine: LiteRtChat, bundle: Path) -> None:
    engine.evaluate(LONG[:300])
    state = engine.save_state()
    wanted = [engine.evaluate([token]).copy() for token in (5, 6)]
    other = LiteRtChat(open_bundle(bundle), 1, context=310)
    other.evaluate(LONG[50:90])
    other.load_state(state, 300)
    for token, logits in zip((5, 6), wanted, strict=True):
        np.testing.assert_array_equal(other.evaluate([token]), logits)
    other.load_state(LiteRtChat(open_bundle(bundle), 1).save_state(), 0)
    assert other.length == 0


@pytest.mark.parametrize(
    ("change", "length"),
    [
        (lambda state: b"", 8),
        (lambda state: state[:-1], 8),
        (lambda state: state, 7),
        (lambda state: state, -8),
        (lambda state: state, 1 << 60),
        (lambda state: b"x" + state[1:], 8),
        (lambda state: state[:20] + bytes([state[20] ^ 1]) + state[21:], 8),
        (lambda state: state[:-9] + bytes([state[-9] ^ 1]) + state[-8:], 8),
    ],
)
def test_a_damaged_state_is_refused_and_leaves_an_empty_sequence(engine: LiteRtChat, change: Any, length: int) -> None:
    engine.evaluate(LONG[:8])
    with pytest.raises(InputError, match="saved sequence"):
        engine.load_state(change(engine.save_state()), length)
    assert engine.length == 0


@pytest.mark.parametrize(
    ("tokens", "outputs", "message"),
    [
        ([], 1, "0 tokens"),
        ([5], 2, "2 outputs"),
        ([5], 0, "0 outputs"),
        ([300], 1, "0 to 299"),
        ([-1], 1, "0 to 299"),
        ([5] * (CONTEXT + 1), 1, "exceed the context"),
    ],
)
def test_what_cannot_be_evaluated_is_named(engine: LiteRtChat, tokens: list[int], outputs: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.evaluate(tokens, outputs=outputs)


def test_embeddings_are_pooled_and_of_unit_length(tmp_path: Path) -> None:
    model = random_causal(replace(SPEC, pooling="mean"))
    bundle = make_chat_bundle(tmp_path / "e.svb", model=model)
    reference = OnnxChat(open_bundle(chat_bundle_case.make_chat_bundle(tmp_path / "o.svb", model=model)), 1)
    found = LiteRtChat(open_bundle(bundle), 1).embed(LONG[: PART + 9])
    np.testing.assert_allclose(found, reference.embed(LONG[: PART + 9]), atol=1e-5)


def test_a_model_for_chat_embeds_nothing_and_takes_no_adapter(engine: LiteRtChat) -> None:
    with pytest.raises(InputError, match="not for embeddings"):
        engine.embed([5])
    with pytest.raises(InputError, match="takes no adapter"):
        engine.attach(Path("a.gguf"), 1.0)
    engine.evaluate([5])
    engine.detach()
    assert engine.length == 0


@pytest.mark.parametrize("changes", [{"heads": 3}, {"heads": None}, {"window": 0}, {"window": "9"}, {"layers": True}])
def test_absurd_numbers_of_the_manifest_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    wrong = open_bundle(make_chat_bundle(tmp_path / "w.svb", **changes))
    with pytest.raises(BundleError, match=next(iter(changes))):
        LiteRtChat(wrong, 1)


@pytest.mark.parametrize("changes", [{"layers": 3}, {"kv_heads": 4}, {"vocab_size": 299}, {"window": 9}])
def test_a_manifest_that_does_not_fit_its_graph_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    wrong = open_bundle(make_chat_bundle(tmp_path / "w.svb", **changes))
    with pytest.raises(BundleError, match=r"model\.tflite"):
        LiteRtChat(wrong, 1).evaluate([5])


def test_too_little_memory_is_said_with_both_numbers(engine: LiteRtChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce.engines.litert_chat.available_bytes", lambda: 1000)
    with pytest.raises(EngineError, match="0 MB are available"):
        engine.load()


@pytest.mark.parametrize("context", [0, CONTEXT + 1])
def test_a_context_that_the_bundle_has_no_room_for_is_refused(bundle: Path, context: int) -> None:
    with pytest.raises(InputError, match=f"room for 1 to {CONTEXT}"):
        LiteRtChat(open_bundle(bundle), 1, context)


def test_a_folder_says_what_the_zip_says(bundle: Path, engine: LiteRtChat, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    other = LiteRtChat(open_bundle(tmp_path), 1)
    np.testing.assert_array_equal(other.evaluate(LONG[:9]), engine.evaluate(LONG[:9]))


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16"])
def test_rounded_weights_say_nearly_the_same(engine: LiteRtChat, tmp_path: Path, precision: str) -> None:
    rounded = LiteRtChat(open_bundle(make_chat_bundle(tmp_path / "r.svb", precision)), 1)
    found, wanted = (one.evaluate(LONG[:20], outputs=20) for one in (rounded, engine))
    error = np.sqrt(np.mean((found - wanted) ** 2) / np.var(wanted))
    assert error < {"int8": 0.1, "int4": 0.4, "fp16": 5e-3}[precision]
