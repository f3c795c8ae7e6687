from pathlib import Path

import numpy as np
import pytest
from bundle_case import make_bundle
from llama_case import engine, needs_llama
from tiny_gguf import SPECIAL, tiny_gguf, tiny_lora, tiny_vocabulary

from sottovoce.bundle import open_bundle
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.llama_cpp import engine as engine_module
from sottovoce.engines.llama_cpp.engine import LlamaCpp
from sottovoce.errors import BundleError, EngineError, InputError

pytestmark = needs_llama
TOKENS = [287, 84, 104, 101, 32, 260, 9, 41, 200, 288]
# Kernels differ with the number of rows at once, and so does the order in which floats are added.
CLOSE = {"rtol": 0, "atol": 2e-4}
# After hundreds of positions, of keys and values in float16; logits of neighbouring positions differ by 1 and more.
CLOSE_AFTER_MANY = {"rtol": 0, "atol": 6e-2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


def test_it_is_a_chat_engine_and_names_itself_and_its_binding(model: Path) -> None:
    made: ChatEngine = LlamaCpp(model)
    assert made.name.startswith("llama.cpp ") and ("xllamacpp" in made.name or "llama-cpp-python" in made.name)
    made.close()


def test_making_one_opens_nothing(tmp_path: Path) -> None:
    made = LlamaCpp(tmp_path / "absent.gguf")
    with pytest.raises(BundleError, match=r"absent\.gguf: No such file"):
        made.load()


def test_a_model_inside_a_bundle_gives_the_same_logits_as_the_plain_file(model: Path, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "chat.svb", {"a.bin": bytes(5000), "model.gguf": model.read_bytes()}))
    inside = bundle.locate("model.gguf")
    assert inside.offset > 0 and inside.offset + inside.size < inside.path.stat().st_size
    with engine(model) as plain, engine(inside) as packed:
        assert np.array_equal(plain.evaluate(TOKENS, outputs=10), packed.evaluate(TOKENS, outputs=10))
        assert packed.gguf.metadata["general.name"] == "tiny"


def test_a_model_that_cannot_be_mapped_where_it_lies_is_read(model: Path, tmp_path: Path) -> None:
    from sottovoce.bundle import Location

    odd = tmp_path / "odd"
    odd.write_bytes(bytes(7) + model.read_bytes())
    with engine(model) as plain, engine(Location(odd, 7, model.stat().st_size)) as shifted:
        assert np.array_equal(plain.evaluate(TOKENS), shifted.evaluate(TOKENS))


def test_one_token_at_a_time_equals_all_at_once(model: Path) -> None:
    with engine(model) as made:
        all_at_once = made.evaluate(TOKENS, outputs=len(TOKENS)).copy()
        assert all_at_once.shape == (len(TOKENS), len(tiny_vocabulary()[0])) and all_at_once.dtype == np.float32
        made.truncate(0)
        steps = [made.evaluate([token])[0].copy() for token in TOKENS]
        assert made.length == len(TOKENS)
    np.testing.assert_allclose(np.array(steps), all_at_once, **CLOSE)
    assert np.abs(all_at_once[0] - all_at_once[1]).max() > 0.1  # logits that differ, or this proved nothing


def test_fewer_outputs_are_the_last_of_all(model: Path) -> None:
    with engine(model) as made:
        whole = made.evaluate(TOKENS, outputs=len(TOKENS)).copy()
        made.truncate(0)
        last = made.evaluate(TOKENS, outputs=3).copy()
        made.truncate(0)
        one = made.evaluate(TOKENS).copy()
    np.testing.assert_allclose(last, whole[-3:], **CLOSE)
    np.testing.assert_allclose(one, whole[-1:], **CLOSE)


def test_the_logits_of_one_token_are_not_copied(model: Path) -> None:
    with engine(model) as made:
        first = made.evaluate(TOKENS[:1])
        second = made.evaluate(TOKENS[1:2])
        assert first is second


@pytest.mark.parametrize("outputs", [1, 2, 50, 100, 299, 300])
def test_a_long_prompt_is_run_in_parts_and_comes_out_the_same(tmp_path: Path, outputs: int) -> None:
    long = tiny_gguf(tmp_path / "long.gguf", context=512)
    tokens = [index * 37 % 256 for index in range(300)]
    with engine(long) as made:
        found = made.evaluate(tokens, outputs=outputs).copy()
        assert found.shape[0] == outputs and made.length == 300
        made.truncate(0)
        expected = np.array([made.evaluate([token])[0].copy() for token in tokens])
    np.testing.assert_allclose(found, expected[-outputs:], **CLOSE_AFTER_MANY)


def test_an_interrupt_between_parts_leaves_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tiny_gguf(tmp_path / "long.gguf", context=512)
    tokens = [index * 37 % 256 for index in range(300)]
    with engine(long) as made:
        expected = made.evaluate(tokens).copy()
        made.truncate(0)
        run = made._open().sequence._run

        def interrupted(part: list[int], outputs: int) -> None:
            if made.length:
                raise KeyboardInterrupt
            run(part, outputs)

        monkeypatch.setattr(made._open().sequence, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.evaluate(tokens)
        monkeypatch.undo()
        assert made.length == engine_module.BATCH
        np.testing.assert_allclose(made.evaluate(tokens[made.length :]), expected, **CLOSE_AFTER_MANY)


def test_an_interrupt_inside_llama_cpp_is_cleaned_up_before_the_next_call(model: Path) -> None:
    with engine(model) as made:
        expected = made.evaluate(TOKENS).copy()
        made.truncate(4)
        sequence = made._open().sequence
        decode = sequence._decode

        def then_interrupted(context: int, batch: object) -> int:
            decode(context, batch)
            raise KeyboardInterrupt

        sequence._decode = then_interrupted
        with pytest.raises(KeyboardInterrupt):
            made.evaluate(TOKENS[4:])
        sequence._decode = decode
        assert made.length == 4
        np.testing.assert_allclose(made.evaluate(TOKENS[4:]), expected, **CLOSE_AFTER_MANY)


def test_what_was_cut_off_leaves_no_trace(model: Path) -> None:
    with engine(model) as made:
        made.evaluate(TOKENS[:4])
        expected = made.evaluate(TOKENS[4:]).copy()
        made.truncate(4)
        made.evaluate([11, 12, 13, 14, 15, 16])
        made.truncate(4)
        assert made.length == 4
        assert np.array_equal(made.evaluate(TOKENS[4:]), expected)


def test_where_a_cache_cannot_be_cut_the_kept_tokens_are_run_again(model: Path) -> None:
    with engine(model) as made:
        made.evaluate(TOKENS[:4])
        expected = made.evaluate(TOKENS[4:]).copy()
        sequence = made._open().sequence
        functions = sequence._functions

        class CannotCut:
            def __getattr__(self, name: str) -> object:
                return (lambda *_: False) if name == "llama_memory_seq_rm" else getattr(functions, name)

        sequence._functions = CannotCut()  # type: ignore[assignment]
        made.truncate(4)
        sequence._functions = functions
        assert made.length == 4 and sequence.tokens == TOKENS[:4]
        np.testing.assert_allclose(made.evaluate(TOKENS[4:]), expected, **CLOSE)


def test_a_context_that_would_be_exceeded_is_refused_and_the_sequence_stays(model: Path) -> None:
    with engine(model, context=16) as made:
        made.evaluate(TOKENS)
        expected = made.evaluate([5]).copy()
        made.truncate(len(TOKENS))
        with pytest.raises(InputError, match=r"10 \+ 7 tokens do not fit a context of 16 positions"):
            made.evaluate([1] * 7)
        assert made.length == len(TOKENS) and np.array_equal(made.evaluate([5]), expected)
        made.evaluate([1] * 5)
        assert made.length == made.context == 16


@pytest.mark.parametrize("tokens", [[], [-1], [len(tiny_vocabulary()[0])], [3, 2**31, 4]])
def test_tokens_that_cannot_be_are_refused_and_the_sequence_stays(model: Path, tokens: list[int]) -> None:
    with engine(model) as made:
        made.evaluate(TOKENS)
        with pytest.raises(InputError):
            made.evaluate(tokens)
        with pytest.raises(InputError):
            made.evaluate([1], outputs=2)
        assert made.length == len(TOKENS)


def test_a_failure_of_llama_cpp_is_an_error_and_the_sequence_goes_on(model: Path) -> None:
    with engine(model) as made:
        expected = made.evaluate(TOKENS).copy()
        made.truncate(4)
        sequence = made._open().sequence
        decode, sequence._decode = sequence._decode, lambda context, batch: -3
        with pytest.raises(EngineError, match=r"could not evaluate 6 tokens \(code -3\)"):
            made.evaluate(TOKENS[4:])
        sequence._decode = decode
        assert made.length == 4
        np.testing.assert_allclose(made.evaluate(TOKENS[4:]), expected, **CLOSE)


def test_positions_that_are_not_there_cannot_be_kept(model: Path) -> None:
    with engine(model) as made:
        made.evaluate(TOKENS)
        for length in (-1, 11):
            with pytest.raises(InputError, match=f"cannot keep {length} positions of 10"):
                made.truncate(length)
        made.truncate(10)
        assert made.length == 10


def test_the_usual_context_is_the_models_and_more_is_refused(model: Path, tmp_path: Path) -> None:
    with engine(model) as made:
        assert made.context == 256
    with engine(tiny_gguf(tmp_path / "large.gguf", context=100_000)) as made:
        assert made.context == 4096
    for context in (0, 257):
        with pytest.raises(InputError, match=f"a context of {context} positions; the model was trained for 1 to 256"):
            LlamaCpp(model, context=context).load()


def test_too_little_memory_is_said_with_both_numbers_before_anything_is_loaded(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "available_bytes", lambda: 5_000_000)
    monkeypatch.setattr(engine_module, "open_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(EngineError, match=r"needs about \d\d MB, .* for 256 positions; 5 MB are available"):
        LlamaCpp(model).load()


def test_a_closed_engine_says_so_and_closing_twice_is_closing_once(model: Path) -> None:
    with engine(model) as made:
        vocabulary = made.vocabulary
        made.close()
        made.close()
        for use in (lambda: made.evaluate([1]), lambda: made.length, made.load, made.save_state, made.detach):
            with pytest.raises(EngineError, match="closed"):
                use()
        with pytest.raises(EngineError, match="closed"):
            vocabulary.encode("text", special=False)


def test_two_engines_do_not_meet(model: Path, tmp_path: Path) -> None:
    with engine(model) as one, engine(tiny_gguf(tmp_path / "other.gguf", seed=1)) as other:
        first = one.evaluate(TOKENS).copy()
        second = other.evaluate(TOKENS).copy()
        assert not np.allclose(first, second, atol=0.1)
        one.truncate(0)
        assert np.array_equal(one.evaluate(TOKENS), first)


def test_nothing_is_written_to_the_terminal(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with engine(model) as made:
        made.evaluate(TOKENS)
    assert capfd.readouterr() == ("", "")


def test_llama_cpps_own_words_end_the_message(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(model.read_bytes().replace(b"llama", b"lloma"))
    with pytest.raises(EngineError, match=r"unknown\.gguf: llama\.cpp could not load the model: .*lloma"):
        LlamaCpp(unknown).load()
    assert capfd.readouterr() == ("", "")


def test_an_adapter_changes_the_logits_and_detaching_it_restores_them_exactly(model: Path, tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora.gguf")
    with engine(model) as made:
        plain = made.evaluate(TOKENS).copy()
        made.attach(lora, 1.0)
        assert made.length == 0
        changed = made.evaluate(TOKENS).copy()
        assert np.abs(changed - plain).max() > 0.1
        made.attach(tiny_lora(tmp_path / "second.gguf", seed=1), 0.5)
        both = made.evaluate(TOKENS).copy()
        assert np.abs(both - changed).max() > 0.01
        made.detach()
        assert made.length == 0
        assert np.array_equal(made.evaluate(TOKENS), plain)
        made.attach(lora, 1.0)
        assert np.array_equal(made.evaluate(TOKENS), changed)
        made.attach(lora, -1.0)
        np.testing.assert_allclose(made.evaluate(TOKENS), plain, rtol=0, atol=1e-3)


def test_the_adapters_attached_first_can_be_kept(model: Path, tmp_path: Path) -> None:
    with engine(model) as made:
        made.attach(tiny_lora(tmp_path / "lora.gguf"), 1.0)
        one = made.evaluate(TOKENS).copy()
        made.attach(tiny_lora(tmp_path / "second.gguf", seed=1), 0.5)
        made.evaluate(TOKENS)
        made.detach(keep=1)
        assert made.length == 0
        assert np.array_equal(made.evaluate(TOKENS), one)


def test_an_adapter_that_does_not_fit_is_refused_and_nothing_changes(model: Path, tmp_path: Path) -> None:
    with engine(model) as made:
        plain = made.evaluate(TOKENS).copy()
        for bad, message in (
            (tiny_lora(tmp_path / "arch.gguf", arch="qwen2"), "made for 'qwen2'; the model is 'llama'"),
            (tiny_lora(tmp_path / "width.gguf", width=32), r"is \(64, 64\) in the model; a \(4, 32\)"),
            (model, "general.type is '', expected 'adapter'"),
        ):
            with pytest.raises(InputError, match=message):
                made.attach(bad, 1.0)
        for scale in (float("nan"), float("inf"), 0.0):
            with pytest.raises(InputError, match="scale"):
                made.attach(tiny_lora(tmp_path / "good.gguf"), scale)
        assert made.length == len(TOKENS)
        made.truncate(0)
        assert np.array_equal(made.evaluate(TOKENS), plain)


def test_embeddings_have_unit_length_and_do_not_disturb_the_sequence(tmp_path: Path) -> None:
    import gguf

    pooled = tiny_gguf(tmp_path / "pooled.gguf", pooling=gguf.PoolingType.MEAN)
    with engine(pooled) as made:
        made.evaluate(TOKENS)
        expected = made.evaluate([5]).copy()
        made.truncate(len(TOKENS))
        one, other, again = made.embed(TOKENS), made.embed([1, 2, 3]), made.embed(TOKENS)
        assert one.shape == (64,) and one.dtype == np.float32
        assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6) and np.array_equal(one, again)
        assert float(one @ other) < 0.99
        assert np.array_equal(made.evaluate([5]), expected)
        with pytest.raises(InputError, match="0 tokens to embed"):
            made.embed([])


def test_a_model_not_made_for_embeddings_says_so(model: Path) -> None:
    with engine(model) as made, pytest.raises(InputError, match="not made for embeddings"):
        made.embed(TOKENS)


def test_special_tokens_are_the_last_of_the_vocabulary(model: Path) -> None:
    with engine(model) as made:
        assert [made.vocabulary.token_bytes(290 - 4 + index).decode() for index in range(3)] == list(SPECIAL[:3])
