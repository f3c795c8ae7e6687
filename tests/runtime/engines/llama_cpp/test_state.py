import hashlib
from pathlib import Path

import numpy as np
import pytest
from llama_case import engine, needs_llama
from tiny_gguf import tiny_gguf, tiny_lora

from sottovoce.engines.llama_cpp.engine import LlamaCpp
from sottovoce.engines.llama_cpp.state import fingerprint
from sottovoce.errors import InputError
from sottovoce.gguf import read_gguf

pytestmark = needs_llama
TOKENS = [287, 84, 104, 101, 32, 260, 9, 41, 200, 288]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


def saved(made: LlamaCpp) -> bytes:
    made.truncate(0)
    made.evaluate(TOKENS)
    return made.save_state()


def test_a_saved_sequence_goes_on_as_if_nothing_had_happened(model: Path) -> None:
    with engine(model) as one, engine(model) as other:
        state = saved(one)
        expected = one.evaluate([7]).copy()
        other.evaluate([1, 2, 3])
        other.load_state(state, len(TOKENS))
        assert other.length == len(TOKENS)
        assert np.array_equal(other.evaluate([7]), expected)
        other.truncate(4)
        one.truncate(4)
        assert np.array_equal(other.evaluate(TOKENS[4:]), one.evaluate(TOKENS[4:]))


def test_a_state_that_is_damaged_anywhere_is_refused_and_the_sequence_is_empty(model: Path) -> None:
    with engine(model) as made:
        state = saved(made)
        for bad in (
            *(b"", b"SVKV0001", state[:-1], state[:79], state + b"\0", bytes(100)),
            *(state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :] for at in (0, 8, 40, 72, 80, 200, len(state) - 1)),
        ):
            made.evaluate([1])
            with pytest.raises(InputError):
                made.load_state(bad, len(TOKENS))
            assert made.length == 0
        made.load_state(state, len(TOKENS))
        assert made.length == len(TOKENS)


def test_a_state_of_another_length_is_refused(model: Path) -> None:
    with engine(model) as made:
        state = saved(made)
        for length in (0, 9, 11, 10_000):
            with pytest.raises(InputError, match=f"expected {length}|has {length} positions"):
                made.load_state(state, length)
    with engine(model, context=8) as small, pytest.raises(InputError, match="there is room for 8"):
        small.load_state(state, len(TOKENS))


def test_a_state_of_another_model_or_other_adapters_is_refused(model: Path, tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora.gguf")
    with engine(model) as made, engine(tiny_gguf(tmp_path / "other.gguf", seed=1)) as other:
        state = saved(made)
        with pytest.raises(InputError, match="another model"):
            other.load_state(state, len(TOKENS))
        made.attach(lora, 1.0)
        with pytest.raises(InputError, match="other adapters"):
            made.load_state(state, len(TOKENS))
        adapted = saved(made)
        made.load_state(adapted, len(TOKENS))
        made.detach()
        with pytest.raises(InputError, match="other adapters"):
            made.load_state(adapted, len(TOKENS))
        made.attach(lora, 0.5)
        with pytest.raises(InputError, match="other adapters"):
            made.load_state(adapted, len(TOKENS))


def test_a_forged_state_with_a_right_digest_is_refused_by_what_llama_cpp_makes_of_it(model: Path) -> None:
    with engine(model) as made:
        state = saved(made)
        start = 80 + 4 * len(TOKENS)
        for payload in (b"", b"\0" * 64, state[start:-10], state[start:] + bytes(8), bytes(len(state) - start)):
            body = state[40:start] + payload
            with pytest.raises(InputError, match="not one that llama"):
                made.load_state(state[:8] + hashlib.sha256(body).digest() + body, len(TOKENS))
            assert made.length == 0
        assert made.evaluate(TOKENS).shape[0] == 1


def test_models_of_one_shape_have_different_fingerprints_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(bytes(4096) + model.read_bytes())
    one = fingerprint(read_gguf(model))
    assert fingerprint(read_gguf(inside, 4096)) == one
    assert fingerprint(read_gguf(tiny_gguf(tmp_path / "other.gguf", seed=1))) != one
