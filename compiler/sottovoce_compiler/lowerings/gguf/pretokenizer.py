"""Which of llama.cpp's pre-tokenizers cuts text as a byte-level tokenizer does, found by what it does.

llama.cpp knows pre-tokenizers by name (`tokenizer.ggml.pre`); a tokenizer.json has none. So a fixed text that every
candidate cuts differently is cut by the source and by each of them. None alike is an error, never a guess.
"""

from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.families import UnsupportedModelError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTED = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(digits: str) -> str:
    return rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACE}"


def _cased(upper: str, lower: str, ending: str, digits: str) -> str:
    """Words that end where small letters do: OpenAI's o200k and Mistral's Tekken."""
    first = rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{ending}"
    second = rf"[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{ending}"
    return rf"{first}|{second}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# llama.cpp's stand-ins: a letter that is not a to z, a letter that is not A to Z.
_UPPER_LIKE, _LOWER_LIKE = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`name` as in `tokenizer.ggml.pre`; `patterns` cut one after the other as llama.cpp does, `published` as the
    tokenizers it stands for do, where that differs; `whole_words`: a word that is a token is not merged."""

    name: str
    patterns: tuple[str, ...]
    whole_words: bool = False
    published: tuple[str, ...] = ()


CANDIDATES = (
    PreTokenizer("gpt-2", (_GPT2,)),
    PreTokenizer("smollm", (r"\p{N}", _GPT2)),
    PreTokenizer("llama-bpe", (_words(r"\p{N}{1,3}"),), whole_words=True),
    PreTokenizer("smaug-bpe", (_words(r"\p{N}{1,3}"),)),  # Llama 3's words, merged by the rules
    PreTokenizer("qwen2", (_words(r"\p{N}"),)),
    PreTokenizer(
        "qwen35",
        (
            rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}",
        ),
    ),
    PreTokenizer(
        "tekken",
        (_cased(_UPPER_LIKE, _LOWER_LIKE, "", r"\p{N}"),),
        whole_words=True,
        published=(_cased(_UPPER, _LOWER, "", r"\p{N}"),),
    ),
    PreTokenizer(
        "gpt-4o",
        (_cased(_UPPER_LIKE, _LOWER_LIKE, f"{_CONTRACTED}?", r"\p{N}{1,3}"),),
        published=(_cased(_UPPER, _LOWER, f"{_CONTRACTED}?", r"\p{N}{1,3}"),),
    ),
    PreTokenizer(
        "deepseek-v3",
        (
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}",
        ),
    ),
)

# Whatever a candidate treats in its own way stands here: digits, runs of space and line ends, contractions in both
# cases, punctuation before letters and line ends, inner capitals, marks, scripts without spaces. It is composed (NFC).
PROBE = (
    "I'm sure they've said it's 'tis, WE'LL SEE, don'T, we'D, you'Re it'S\n"
    "def f(x_1, y=[2.50]):\n    return x_1**2 != 10_000  # 100% off!!\r\n\n\n\tend\t\t \t.\n"
    "  two   three    four     five\n \n  \n   \nHTTPServer camelCase PascalCase iPhone4S ABCdef a/b//\n//c (d)\n.\n"
    "1 12 123 1234 12345 123456 1234567 ½ ² ٣٤٥ Ⅷ x1y22z333\n"
    "Größe ÉCOLE été ПриветМир привет αβγΔΕ हिन्दी में लिखा வணக்கம் ภาษาไทย ตัวอย่าง العَرَبِيَّة\n"
    "我在2024年学习中文。日本語のテキスト、カタカナ123 한국어 문장입니다 emoji 😀👩‍👩‍👧 🇪🇺☕️ → ∑ € … “quote”—dash\n"
    'http://example.org/?q=a&b="c" user@host.com #tag @name $5.00 ~tilde `code` {json: [1,2]} <b>bold</b>\n'
    "trailing space \n and more \u00a0nbsp\u3000wide "
)


def cut(tokenizer: Any, text: str) -> list[str]:
    """The words into which a `tokenizers.Tokenizer` cuts normalized text, in the byte-level alphabet."""
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer is not None else text
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def cutter(patterns: tuple[str, ...]) -> Any:
    """The `tokenizers` pre-tokenizer that cuts by each pattern in turn and spells words in the byte-level alphabet."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    splits = [Split(Regex(pattern), "isolated") for pattern in patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])


def identify(tokenizer: Any, name: str) -> tuple[PreTokenizer, tuple[str, ...]]:
    """The pre-tokenizer of a byte-level `tokenizers.Tokenizer`, and notes on what llama.cpp does otherwise.

    Raises UnsupportedModelError where none cuts alike.
    """
    words = cut(tokenizer, PROBE)
    alike = [one for one in CANDIDATES if _cuts(one.published or one.patterns, words)]
    if not alike:
        raise UnsupportedModelError(
            f"{name}: the tokenizer cuts text as none of llama.cpp's pre-tokenizers that are known here does "
            f"({', '.join(one.name for one in CANDIDATES)}); compile for a target that runs ONNX"
        )
    whole = bool(tokenizer.model.ignore_merges)
    chosen = next((one for one in alike if one.whole_words == whole), alike[0])
    notes = []
    if chosen.whole_words != whole and (token := _unmerged(tokenizer)) is not None:
        raise UnsupportedModelError(
            f"{name}: ignore_merges is {str(whole).lower()}, llama.cpp's {chosen.name} has it otherwise, and the token "
            f"{token!r} shows the difference"
        )
    if chosen.published and not _cuts(chosen.patterns, words):
        notes.append(f"llama.cpp's {chosen.name} cuts words with marks or capitals other than A to Z differently")
    return chosen, tuple(notes)


def _cuts(patterns: tuple[str, ...], words: list[str]) -> bool:
    return [word for word, _ in cutter(patterns).pre_tokenize_str(PROBE)] == words


def _unmerged(tokenizer: Any) -> str | None:
    """A token that the merges do not reach, so that whether they are asked first matters."""
    model = tokenizer.model
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    ignores, model.ignore_merges = model.ignore_merges, False
    try:
        for token, index in tokenizer.get_vocab(with_added_tokens=False).items():
            if token not in added and [one.id for one in model.tokenize(token)] != [index]:
                return str(token)
    finally:
        model.ignore_merges = ignores
    return None
