from pathlib import Path

import pytest
from llama_case import engine, needs_llama
from tiny_gguf import IM_END, IM_START, SPECIAL, tiny_gguf, tiny_vocabulary

from sottovoce.errors import InputError

pytestmark = needs_llama
FIRST_SPECIAL = len(tiny_vocabulary()[0]) - len(SPECIAL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


def test_text_comes_back_from_its_tokens(model: Path) -> None:
    with engine(model) as made:
        words = made.vocabulary
        for text in ("the hat", "voilà, 日本語 🙂", "\n\n  tabs\t", "<|im_start|>", "a\0b", "x" * 5000):
            for special in (False, True):
                tokens = words.encode(text, special=special)
                assert b"".join(map(words.token_bytes, tokens)).decode() == text


def test_a_special_spelling_is_one_token_only_where_it_is_asked_for(model: Path) -> None:
    with engine(model) as made:
        words = made.vocabulary
        assert words.encode(IM_START, special=True) == [FIRST_SPECIAL + 1]
        apart = words.encode(IM_START, special=False)
        assert len(apart) > 3 and not any(map(words.is_control, apart))


def test_no_bos_is_added_and_whether_there_should_be_one_is_said(model: Path, tmp_path: Path) -> None:
    with engine(model) as made:
        assert made.vocabulary.bos == FIRST_SPECIAL + 1 and not made.vocabulary.adds_bos
    with engine(tiny_gguf(tmp_path / "bos.gguf", adds_bos=True)) as made:
        assert made.vocabulary.adds_bos
        assert made.vocabulary.encode("the", special=True) == made.vocabulary.encode("the", special=False)
        assert made.vocabulary.bos not in made.vocabulary.encode("the", special=True)


def test_ends_and_control_tokens_are_told(model: Path) -> None:
    with engine(model) as made:
        words = made.vocabulary
        assert words.ends == {FIRST_SPECIAL, FIRST_SPECIAL + 2}  # end of text and end of turn
        assert [words.is_control(FIRST_SPECIAL + index) for index in range(4)] == [True, True, True, False]
        assert not words.is_control(65) and words.token_bytes(FIRST_SPECIAL + 2) == IM_END.encode()
        assert words.token_bytes(FIRST_SPECIAL + 3) == b""


def test_the_table_has_every_token_in_order(model: Path) -> None:
    with engine(model) as made:
        words = made.vocabulary
        assert len(words.table) == words.size == len(tiny_vocabulary()[0])
        assert words.table[:256] == [bytes([byte]) for byte in range(256)]
        assert words.table[256:FIRST_SPECIAL][:3] == [b"th", b"the", b"an"]
        assert words.table == [words.token_bytes(token) for token in range(words.size)]


def test_empty_text_has_no_tokens_and_half_a_surrogate_pair_is_a_question_mark(model: Path) -> None:
    with engine(model) as made:
        assert made.vocabulary.encode("", special=True) == []
        assert made.vocabulary.encode("\ud83d", special=True) == made.vocabulary.encode("?", special=True)


def test_a_token_that_is_none_is_refused(model: Path) -> None:
    with engine(model) as made:
        for token in (-1, made.vocabulary.size):
            with pytest.raises(InputError, match=f"token {token}"):
                made.vocabulary.token_bytes(token)
            with pytest.raises(InputError, match=f"token {token}"):
                made.vocabulary.is_control(token)
