"""Text as it is compared: Whisper's normalisation rules (Radford et al. 2022, arXiv 2212.04356, appendix C).

Knows which rules a language takes and which languages are counted in characters. Does not count anything.

The rules come from `whisper-normalizer`, a copy of the ones published with Whisper together with their table
of British and American spellings, so that figures compare with everyone else's. (transformers has the same
code without the table, which comes with each model's repository and is missing from the sources that have
their own format.) Only its `basic` and `english` modules are imported: what it drags in for Indic languages
is never loaded.

One thing to know about the rules: outside English they turn combining marks into spaces, so in Hindi or Thai
a wrong vowel sign may go uncounted. They are kept because source and artifact are measured alike.
"""

from collections.abc import Callable
from functools import cache

# Written without spaces between words, so that "a word" is not defined, and Korean, whose spacing varies
# among careful writers: the error rate is counted in characters.
CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "ko", "th", "lo", "my"})


def counts_characters(language: str | None) -> bool:
    """Whether texts in this language (a code such as "ja") are compared by characters."""
    return language in CHARACTER_LANGUAGES


def normalize(text: str, language: str | None) -> str:
    """`text` without punctuation, case and layout; for English with numbers as digits and one spelling.

    Languages that are counted in characters lose their spaces too, so that each character left is one unit.
    """
    clean = " ".join((_english() if language == "en" else _basic())(text).split())
    return clean.replace(" ", "") if counts_characters(language) else clean


def units(text: str, language: str | None) -> list[str]:
    """The words, or characters, of the normalised text: what an error is one of."""
    clean = normalize(text, language)
    return list(clean) if counts_characters(language) else clean.split()


@cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalizer: Callable[[str], str] = EnglishTextNormalizer()
    return normalizer


@cache
def _basic() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    normalizer: Callable[[str], str] = BasicTextNormalizer()
    return normalizer
