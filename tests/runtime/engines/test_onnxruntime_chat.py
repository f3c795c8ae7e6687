"""The chat engine over a tiny random bundle: fp32 for what must be equal, int4 for what may round."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_bundle_case import CONTEXT, SPEC, make_chat_bundle, random_causal

from sottovoce.bundle import open_bundle
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.onnxruntime_chat import PART, OnnxChat
from sottovoce.engines.shapes import ChatShape
from sottovoce.errors import BundleError, EngineError, InputError

# fp32 over other shapes adds in another order; logits here are of size 1 to 10.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 3e-4}
LONG = [int(token) for token in np.random.default_rng(0).integers(3, 300, 2 * PART + 20)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_bundle(tmp_path_factory.mktemp("chat") / "nano.svb")


@pytest.fixture
def engine(bundle: Path) -> Iterator[OnnxChat]:
    engine = OnnxChat(open_bundle(bundle), 1)
    yield engine
    engine.close()


def of_one_run(engine: OnnxChat, tokens: list[int], outputs: int) -> np.ndarray:
    """The logits of a session that saw all of it at once, without parts."""
    engine.truncate(0)
    ids = engine._checked(tokens, outputs)
    return engine._run(ids, np.arange(ids.size - outputs, ids.size)).copy()


def test_it_is_a_chat_engine(engine: OnnxChat) -> None:
    checked: ChatEngine = engine
    assert (checked.context, checked.length, checked.vocabulary.size) == (CONTEXT, 0, SPEC.vocab_size)
    assert checked.name.startswith("onnxruntime 1.")


@pytest.mark.parametrize("outputs", [1, 7, 21, PART, PART + 30, len(LONG)])
def test_a_long_prompt_in_parts_gives_the_logits_of_one_run(engine: OnnxChat, outputs: int) -> None:
    wanted = of_one_run(engine, LONG, outputs)
    engine.truncate(0)
    found = engine.evaluate(LONG, outputs=outputs)
    assert found.shape == (outputs, SPEC.vocab_size) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, **CLOSE)
    assert engine.length == len(LONG)
    assert outputs == 1 or np.abs(np.diff(found, axis=0)).mean() > 0.1, "every token changes the logits"


def test_steps_give_the_logits_of_the_prompt(engine: OnnxChat) -> None:
    wanted = of_one_run(engine, LONG[:40], 40)
    engine.truncate(0)
    found = np.concatenate([engine.evaluate([token]).copy() for token in LONG[:40]])
    np.testing.assert_allclose(found, wanted, **CLOSE)


def test_after_truncating_the_rest_is_forgotten(engine: OnnxChat) -> None:
    engine.evaluate(LONG[:30])
    wanted = engine.evaluate(LONG[30:33], outputs=2).copy()
    engine.evaluate(LONG[100:150])
    engine.truncate(30)
    assert engine.length == 30
    np.testing.assert_array_equal(engine.evaluate(LONG[30:33], outputs=2), wanted)
    engine.truncate(1000)
    assert engine.length == 33, "there is nothing more to forget"
    with pytest.raises(InputError, match="-1 positions"):
        engine.truncate(-1)


def test_the_room_grows_with_the_conversation_and_keeps_it(bundle: Path) -> None:
    small, large = (OnnxChat(open_bundle(bundle), 1) for _ in range(2))
    large.evaluate(LONG)  # grown at once
    large.truncate(0)
    for start in range(0, len(LONG), 37):
        part = LONG[start : start + 37]
        found = small.evaluate(part, outputs=len(part))
        np.testing.assert_allclose(found, large.evaluate(part, outputs=len(part)), **CLOSE)
    assert small.length == len(LONG)
    np.testing.assert_allclose(small.evaluate([9]), large.evaluate([9]), **CLOSE)


def test_too_little_memory_is_said_with_the_number_and_the_sequence_stays(
    engine: OnnxChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.evaluate(LONG[:20])
    wanted = engine.evaluate([5]).copy()
    engine.truncate(20)

    def nothing_left(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("sottovoce.engines.onnxruntime_chat.np.zeros", nothing_left)
    with pytest.raises(InputError, match=r"600 positions need \d+ MB"):
        engine.evaluate(LONG)
    monkeypatch.undo()
    np.testing.assert_array_equal(engine.evaluate([5]), wanted)


def test_a_saved_sequence_goes_on_as_it_would_have(engine: OnnxChat, bundle: Path) -> None:
    engine.evaluate(LONG[:300])
    state = engine.save_state()
    wanted = [engine.evaluate([token]).copy() for token in (5, 6)]
    other = OnnxChat(open_bundle(bundle), 1, context=310)
    other.evaluate(LONG[50:90])
    other.load_state(state, 300)
    assert other.length == 300
    for token, logits in zip((5, 6), wanted, strict=True):
        np.testing.assert_array_equal(other.evaluate([token]), logits)


def test_an_empty_sequence_can_be_saved_too(engine: OnnxChat) -> None:
    state = engine.save_state()
    engine.evaluate(LONG[:5])
    engine.load_state(state, 0)
    assert engine.length == 0


@pytest.mark.parametrize(
    ("change", "length"),
    [
        (lambda state: b"", 8),
        (lambda state: state[:-1], 8),
        (lambda state: state + b"\0", 8),
        (lambda state: state, 7),
        (lambda state: state, -8),
        (lambda state: state, 1 << 60),
        (lambda state: b"x" + state[1:], 8),
        (lambda state: state[:20] + bytes([state[20] ^ 1]) + state[21:], 8),
        (lambda state: state[:-9] + bytes([state[-9] ^ 1]) + state[-8:], 8),
    ],
)
def test_a_damaged_state_is_refused_and_leaves_an_empty_sequence(engine: OnnxChat, change: Any, length: int) -> None:
    engine.evaluate(LONG[:8])
    state = engine.save_state()
    with pytest.raises(InputError, match="saved sequence"):
        engine.load_state(change(state), length)
    assert engine.length == 0
    engine.load_state(state, 8)


def test_a_state_of_another_model_is_refused(engine: OnnxChat, tmp_path: Path) -> None:
    other = OnnxChat(open_bundle(make_chat_bundle(tmp_path / "other.svb", model=random_causal(seed=1))), 1)
    other.evaluate(LONG[:8])
    with pytest.raises(InputError, match="not of this model"):
        engine.load_state(other.save_state(), 8)


def test_more_than_fits_is_refused_before_anything_runs(bundle: Path) -> None:
    engine = OnnxChat(open_bundle(bundle), 1, context=16)
    engine.evaluate(LONG[:10])
    with pytest.raises(InputError, match="10 \\+ 7 tokens exceed the context of 16"):
        engine.evaluate(LONG[:7])
    assert engine.length == 10
    assert engine.evaluate(LONG[:6]).shape == (1, SPEC.vocab_size)


@pytest.mark.parametrize(("tokens", "outputs"), [([], 1), ([5], 0), ([5], 2), ([5, 300], 1), ([-1], 1)])
def test_input_that_makes_no_sense_is_refused(engine: OnnxChat, tokens: list[int], outputs: int) -> None:
    with pytest.raises(InputError):
        engine.evaluate(tokens, outputs=outputs)
    assert engine.length == 0


def test_an_interrupt_between_parts_keeps_what_was_run(engine: OnnxChat, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine._run

    def interrupted(tokens: Any, positions: Any) -> Any:
        if engine.length:
            raise KeyboardInterrupt
        return run(tokens, positions)

    monkeypatch.setattr(engine, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.evaluate(LONG)
    assert engine.length == PART
    monkeypatch.undo()
    found = engine.evaluate(LONG[PART:]).copy()
    engine.truncate(0)
    np.testing.assert_array_equal(found, engine.evaluate(LONG))


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_a_bundle_of_every_precision_runs_alike_in_parts_and_steps(precision: str, tmp_path: Path) -> None:
    engine = OnnxChat(open_bundle(make_chat_bundle(tmp_path / "small.svb", precision)), 1)
    whole = engine.evaluate(LONG[:24], outputs=24).copy()
    engine.truncate(0)
    steps = np.concatenate([engine.evaluate([token]).copy() for token in LONG[:24]])
    # A value on the edge between two codes of an activation may fall to either side.
    assert np.abs(steps - whole).mean() < 0.02 * np.abs(whole).mean()


def test_a_folder_runs_as_the_archive_does(engine: OnnxChat, tmp_path: Path) -> None:
    folder = OnnxChat(open_bundle(make_chat_bundle(tmp_path / "nano")), 1)
    np.testing.assert_array_equal(folder.evaluate(LONG[:9]), engine.evaluate(LONG[:9]))


def test_changed_weights_are_refused_before_a_word_is_said(tmp_path: Path) -> None:
    folder = make_chat_bundle(tmp_path / "nano")
    weights = folder / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.bin is damaged"):
        OnnxChat(open_bundle(folder), 1).evaluate([5])


def test_a_graph_that_does_not_fit_its_manifest_is_an_engine_error(tmp_path: Path) -> None:
    model = {"layers": 3, "kv_heads": 2, "head_width": 16, "vocab_size": 300, "context": CONTEXT}
    with pytest.raises(EngineError, match="past_key_2"):
        OnnxChat(open_bundle(make_chat_bundle(tmp_path / "nano.svb", shape=model)), 1).load()


def test_adapters_are_refused_with_the_way_out(engine: OnnxChat) -> None:
    with pytest.raises(InputError, match=r"takes no adapter.*GGUF"):
        engine.attach(Path("mine.gguf"), 1.0)
    engine.evaluate([5])
    engine.detach()
    assert engine.length == 0


def test_embeddings_come_from_models_made_for_them(engine: OnnxChat, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nano is made for chat"):
        engine.embed([5])
    for pooling in ("mean", "last", "cls"):
        model = random_causal(replace(SPEC, pooling=pooling))
        made = OnnxChat(open_bundle(make_chat_bundle(tmp_path / f"{pooling}.svb", model=model)), 1)
        vector, longer = made.embed(LONG[:20]), made.embed(LONG)
        assert vector.shape == (SPEC.width,) and made.length == 0
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        same = float(vector @ longer)
        assert same == pytest.approx(1, abs=1e-5) if pooling == "cls" else same < 0.99
        np.testing.assert_allclose(made.embed(LONG[:20]), vector, atol=1e-6)


@pytest.mark.parametrize("context", [0, -1, CONTEXT + 1])
def test_a_context_that_the_bundle_has_no_room_for_is_refused(bundle: Path, context: int) -> None:
    with pytest.raises(InputError, match=f"1 to {CONTEXT}"):
        OnnxChat(open_bundle(bundle), 1, context=context)


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", None), ("layers", True), ("kv_heads", 0), ("head_width", 1 << 20), ("vocab_size", "9"), ("pooling", 3)],
)
def test_an_absurd_shape_is_refused_by_name(key: str, value: object) -> None:
    model = {"layers": 2, "kv_heads": 2, "head_width": 16, "vocab_size": 300, "context": 64}
    with pytest.raises(BundleError, match=f"{key} = {value!r}"):
        ChatShape.of({**model, key: value})


def test_too_little_memory_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(make_chat_bundle(tmp_path / "chat.svb"))
    monkeypatch.setattr("sottovoce.engines.onnxruntime_chat.available_bytes", lambda: 100_000)
    with pytest.raises(EngineError, match=r"needs about \d+ MB, .* 0 MB are available"):
        OnnxChat(bundle, 1).load()
