"""Word ends from forced alignment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from data import Heard, hear
from word_ends import SpokenWord, WordEnds, differences, guess, pieces, summary, tokens_of, word_ends
from word_ends import _Aligned as Aligned

from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.stream_score import words_of


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don\N{RIGHT SINGLE QUOTATION MARK}t stop", ["don't", "stop"]),
        ("the Gutenberg, or \N{LEFT DOUBLE QUOTATION MARK}forty-two line Bible", None),
        ("'tis i.e. mak'st 1.5 %", ["tis", "i", "e", "mak'st", "1", "5"]),
        (" \N{EM DASH} ", []),
    ],
)
def test_each_word_is_one_word_to_the_scoring_too(text: str, tokens: list[str] | None) -> None:
    found = tokens_of(text)
    assert tokens is None or found == tokens
    assert [words_of(token, "en") for token in found] == [[word] for word in words_of(text, "en")]


def test_an_unknown_word_is_guessed_from_known_words_and_letters() -> None:
    known = {"wood": "W UH D", "cutter": "K AH T ER"}
    assert guess("woodcutters", known.get) == "W UH D K AH T ER S"
    assert guess("thê7", known.get) == "TH EH S EH V AH N"
    assert guess("\N{HIRAGANA LETTER A}", known.get) == "AH"


def test_pieces_are_cut_in_the_middle_of_pauses_once_they_are_long() -> None:
    early, late = Aligned("a", 0.0, 1.0), Aligned("b", 3.0, 9.0)
    after, last = Aligned("c", 9.1, 10.0), Aligned("d", 10.4, 11.0)
    found = list(pieces([early, late, after, last]))
    # The pause after 1 s comes too soon, the one after 9 s is too short.
    assert [[word.word for word in piece.words] for piece in found] == [["a", "b", "c"], ["d"]]
    assert [piece.start for piece in found] == [0.0, pytest.approx(10.2)]
    assert [piece.end for piece in found] == [pytest.approx(10.2), None]


def spoken(*words: tuple[int, float, float]) -> WordEnds:
    return WordEnds(tuple(SpokenWord(place, "x", start, end) for place, start, end in words), {})


def test_a_pause_lies_between_neighbours_that_are_both_trusted() -> None:
    ends = spoken((0, 0.0, 1.0), (1, 1.5, 2.0), (3, 6.0, 7.0), (4, 7.2, 8.0))
    # Between 2 s and 6 s a word is missing: that is no pause.
    seconds, words = ends.pause_before(9.0)
    assert (seconds, words) == (1.25, 1)
    with pytest.raises(LookupError, match=r"40\.0 s"):
        ends.pause_before(40.0)


def test_differences_are_of_the_same_words_and_in_the_order_later_is_more() -> None:
    ours = (("the", 1.0), ("cat", 2.0), ("sat", 3.0))
    theirs = ((" The", 1.25), (" hat", 2.0), (" sat.", 2.5))
    found = differences(ours, theirs, "en")
    assert list(found) == [0.25, -0.5]
    said = summary(found)
    assert said is not None
    assert (said.words, said.mean, said.mean_absolute) == (2, pytest.approx(-0.125), pytest.approx(0.375))
    assert summary(()) is None


@pytest.fixture(scope="module")
def clip() -> Heard:
    return hear(next(clip for clip in builtin_set().clips if clip.is_speech and clip.seconds > 4))


@pytest.mark.weights
def test_words_of_a_real_recording_end_in_order_inside_it(clip: Heard, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    found = word_ends([clip], tmp_path / "ends.json")[clip.clip.name]
    tokens = tokens_of(clip.clip.text)
    assert len(found.words) + sum(map(len, found.left_out.values())) == len(tokens)
    assert len(found.words) > 0.7 * len(tokens)
    assert all(tokens[word.place] == word.word for word in found.words)
    ends = [end for _, end in found.ends]
    assert ends == sorted(ends)
    assert ends[0] > 0 and ends[-1] <= clip.clip.seconds


@pytest.mark.weights
def test_a_word_that_no_dictionary_has_is_left_out_and_its_neighbours_stay(clip: Heard, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    tokens = tokens_of(clip.clip.text)
    longest = max(range(len(tokens)), key=lambda i: len(tokens[i]))
    text = " ".join([*tokens[:longest], tokens[longest] + "q", *tokens[longest + 1 :]])
    changed = Heard(replace(clip.clip, text=text), clip.samples)
    found = word_ends([changed], tmp_path / "ends.json")[clip.clip.name]
    assert found.left_out["not in the dictionary"] == (tokens[longest] + "q",)
    before = word_ends([clip], tmp_path / "ends.json")[clip.clip.name]
    assert len(found.words) >= len(before.words) - 4


@pytest.mark.weights
def test_ends_are_read_from_the_cache_unless_the_text_is_another(clip: Heard, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    cache = tmp_path / "made" / "ends.json"
    first = word_ends([clip], cache)
    known = json.loads(cache.read_text())
    (key,) = known
    known[key]["words"] = known[key]["words"][:1]
    cache.write_text(json.dumps(known))
    assert len(word_ends([clip], cache)[clip.clip.name].words) == 1
    other = Heard(replace(clip.clip, text=clip.clip.text + " "), clip.samples)
    assert word_ends([other], cache)[clip.clip.name] == first[clip.clip.name]
