from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.words import TokenWord, split_words


def split(pieces: Sequence[bytes | str], language: str = "en") -> list[str]:
    return [word.text for word in words(pieces, language)]


def words(pieces: Sequence[bytes | str], language: str = "en") -> list[TokenWord]:
    table = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return split_words(range(len(table)), lambda ids: b"".join(table[i] for i in ids), language)


def test_words_are_parted_by_spaces_and_keep_theirs() -> None:
    assert split([" Hel", "lo", " world"]) == [" Hello", " world"]
    assert split(["No", " space", " first"]) == ["No", " space", " first"]


def test_punctuation_joins_the_word_that_it_closes_or_opens() -> None:
    assert split([" Hello", ",", " world", "!"]) == [" Hello,", " world!"]
    assert split([" He", " said", ' "', "Go", '."']) == [" He", " said", ' "Go."']
    assert split([" (", "yes", ")", " and", " [", "no", "]"]) == [" (yes)", " and", " [no]"]
    assert split([" ¿", "Qué", "?"], "es") == [" ¿Qué?"]
    assert split([" it", "'s", " rock", "-", "and", "-", "roll"]) == [" it's", " rock-and-roll"]
    assert split([" 3", ".", "14", "..."]) == [" 3.14..."]


def test_the_spoken_part_of_a_word_ends_where_its_closing_punctuation_begins() -> None:
    assert [word.spoken for word in words([" tr", "ied", ",", " 3", ".", "14", "...", " no"])] == [2, 6, 8]
    assert [word.spoken for word in words([" “", "Go", ".", "”", ' "', "I"])] == [2, 6]
    assert [word.spoken for word in words(["晴", "れ", "。"], "ja")] == [1, 2]
    assert [word.spoken for word in words(["...", " so"])] == [1, 2]


def test_punctuation_after_a_space_still_closes_the_word_before() -> None:
    assert split([" bon", "jour", " !"], "fr") == [" bonjour !"]


def test_scripts_without_spaces_part_by_the_tokens_of_their_characters() -> None:
    assert split(["今日", "は", "晴", "れ", "。"], "ja") == ["今日", "は", "晴", "れ。"]
    assert split(["「", "今日", "」", "と"], "ja") == ["「今日」", "と"]


def test_a_character_spread_over_tokens_stays_whole() -> None:
    data = "東京".encode()
    found = words([data[:1], data[1:2], data[2:4], data[4:]], "zh")
    assert [word.text for word in found] == ["東京"], "the third token ends inside the second character"
    found = words([data[:2], data[2:3], data[3:5], data[5:]], "zh")
    assert [(word.text, word.first, word.last) for word in found] == [("東", 0, 2), ("京", 2, 4)]


def test_bytes_that_never_become_a_character_are_kept_as_a_replacement() -> None:
    assert split([" ok", b"\xe6\x9d"]) == [" ok\ufffd"]
    assert split([b"\xff"]) == ["\ufffd"]


def test_nothing_is_no_words() -> None:
    assert split([]) == []


def test_blanks_do_not_swallow_what_follows() -> None:
    assert split([" ", " a", " b"]) == [" ", " a", " b"]
    assert "".join(split(["\n", "a"])) == "\na"


@pytest.mark.parametrize("language", ["en", "zh"])
@given(st.lists(st.text(max_size=4), max_size=12), st.integers(0, 5))
def test_words_cover_every_token_once_and_join_to_the_text(language: str, pieces: list[str], seed: int) -> None:
    data = "".join(pieces).encode()
    cuts = sorted({0, len(data), *(seed + 3 * i for i in range(8) if seed + 3 * i < len(data))})
    tokens = [data[a:b] for a, b in pairwise(cuts)]
    found = words(tokens, language)
    assert "".join(word.text for word in found) == data.decode()
    edges = [word.first for word in found] + [word.last for word in found[-1:]]
    assert edges == sorted(set(edges)) and edges[:1] in ([], [0]) and edges[-1:] in ([], [len(tokens)])
