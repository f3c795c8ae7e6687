import sys
from typing import Any

import pytest

from sottovoce_compiler.report.normalize import CHARACTER_LANGUAGES, normalize, units


def test_english_numbers_contractions_and_spellings_become_one_form() -> None:
    assert normalize("Mr. Quilter's colour isn't twenty-one!", "en") == "mister quilter is color is not 21"


def test_other_languages_keep_their_letters_and_lose_punctuation_and_case() -> None:
    assert normalize("Désolé, ce numéro n'est pas VALIDE.", "fr") == "désolé ce numéro n est pas valide"


@pytest.mark.parametrize(("language", "text", "count"), [("zh", "近几年。不但。", 5), ("ko", "그는 이리 저리", 6)])
def test_languages_without_words_are_counted_in_characters_without_spaces(language: str, text: str, count: int) -> None:
    assert len(units(text, language)) == count
    assert all(len(unit) == 1 for unit in units(text, language))


def test_the_rules_are_those_that_transformers_has_with_the_same_table() -> None:
    import json
    from importlib.resources import files

    from transformers.models.whisper import english_normalizer

    theirs: Any = english_normalizer  # not typed

    table = json.loads(files("whisper_normalizer").joinpath("normalizers/english.json").read_text())
    english, basic = theirs.EnglishTextNormalizer(table), theirs.BasicTextNormalizer()
    for text in (
        "He won't pay $20 million, nor 1,000 pounds; colour me grey!",
        "[laughs] um, it's (quietly) 3rd",
    ):
        assert normalize(text, "en") == " ".join(english(text).split())
        assert normalize(text, "de") == " ".join(basic(text).split())


def test_no_language_means_words_by_the_basic_rules() -> None:
    assert units("One, two!", None) == ["one", "two"]


def test_nothing_for_indic_languages_is_loaded() -> None:
    normalize("a", "en")
    normalize("a", "hi")
    assert "whisper_normalizer.indic" not in sys.modules


def test_every_character_language_gives_units_without_spaces() -> None:
    assert all(" " not in units("ก ข ค", language) for language in CHARACTER_LANGUAGES)
